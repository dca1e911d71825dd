// What every page is made of: elements, requests, numbers in words, tables, charts.
// Text from anywhere enters a page as text nodes only: nothing here parses HTML.

export const base = new URL('.', document.baseURI)
const airflow = new URL('..', base)
const SVG = new Set(['svg', 'line', 'polyline', 'rect', 'text', 'circle', 'title'])

/** An element: h('a', {href: '#'}, 'text', child, ...). Properties that begin with "on" are listeners. */
export function h(tag, properties = {}, ...children) {
  const element = SVG.has(tag)
    ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined
    && child !== false))
  return element
}

/** Something that a person can act on; its message is shown where the content would be. */
export class Problem extends Error {}

/** The answer of the console's own API; a Blob where it is a picture. */
export async function ask(path, query = {}, options = {}) {
  const url = address(path, query)
  let response
  try {
    response = await fetch(url, options)
  } catch {
    throw new Problem('Airflow does not answer: is the api-server up?')
  }
  if (response.status === 401) {
    throw new Problem('You are logged out: log in to Airflow and reload this page.')
  }
  if (response.ok && response.headers.get('Content-Type') === 'image/png') return response.blob()
  const body = await response.json().catch(() => ({}))
  if (response.ok) return body
  const said = typeof body.detail === 'string' ? body.detail : null
  // Airflow's word for a missing permission; other refusals name their reason.
  if (response.status === 403 && (said ?? 'Forbidden') === 'Forbidden') {
    throw new Problem('You may look, but not change anything: '
      + 'ask for the permission to edit train_and_deploy.')
  }
  throw new Problem(said ?? `the server answers ${response.status}`)
}

export function address(path, query) {
  const url = new URL(`api/${path}`, base)
  for (const [name, value] of Object.entries(query)) {
    if (![null, undefined, '', false].includes(value)) url.searchParams.set(name, value)
  }
  return url
}

export const post = (path, query, document) => ask(path, query,
  {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(document)})

/** Start a DAG as the user, through Airflow's own API with its own permissions. */
export async function start(dag, conf) {
  const response = await fetch(new URL(`api/v2/dags/${dag}/dagRuns`, airflow), {
    method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({logical_date: null, conf}),
  })
  const body = await response.json().catch(() => ({}))
  if (response.status === 403) {
    throw new Problem(`You may not start ${dag}: ask for the permission to run it.`)
  }
  if (response.status === 404) throw new Problem(`There is no DAG ${dag}.`)
  if (!response.ok) throw new Problem(typeof body.detail === 'string' ? body.detail
    : JSON.stringify(body.detail ?? body))
  return body
}

// Numbers and names in words

const known = (value) => value !== null && value !== undefined
export const percent = (value, digits = 1) => known(value) ? `${(100 * value).toFixed(digits)} %` : '–'
export const number = (value, digits = 2) => known(value)
  ? Number(value).toLocaleString('en', {maximumFractionDigits: digits}) : '–'
export const usd = (value) => !known(value) ? '–'
  : value > 0 && value < 0.01 ? 'under 1 ¢'
  : `$${Number(value).toLocaleString('en', {minimumFractionDigits: 2, maximumFractionDigits: 2})}`
export const when = (time) => time
  ? new Date(time).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short'}) : '–'
export const day = (time) =>
  h('span', {class: 'day'}, time ? new Date(time).toLocaleDateString('en-GB', {dateStyle: 'medium'}) : '–')
export const megabytes = (bytes) => known(bytes) ? `${number(bytes / 1e6, 1)} MB` : '–'
export const readable = (name) => String(name).replaceAll('_', ' ')
export const span = (seconds) => !known(seconds) ? '–' : seconds < 90 ? `${Math.round(seconds)} s`
  : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
export const to = (hash) => `#/${hash.map(encodeURIComponent).join('/')}`
export const link = (hash, text, look = null) => h('a', {href: to(hash), class: look}, text)
// Airflow's frame lets nothing open a window: there, a page from elsewhere takes the place of this one.
export const outside = (url, text) => url ? h('a', {href: url, class: 'button', rel: 'noopener',
  target: window.top === window ? '_blank' : null}, text) : null
export const interval = (figures) => figures?.interval
  ? `${percent(figures.interval.low)} to ${percent(figures.interval.high)}` : null

// Parts of a page

export const missing = (text) => h('p', {class: 'missing', role: 'status'},
  String(text ?? '').replace(/^./, (first) => first.toUpperCase()))
export const badge = (text, look = 'plain') => h('span', {class: `badge ${look}`}, text)
export const card = (title, ...content) => h('section', {class: 'card'}, title ? h('h3', {}, title) : null,
  content)
export const tiles = (...entries) =>
  h('dl', {class: 'tiles'}, entries.filter(Boolean).map(([name, value, remark]) =>
    h('div', {}, h('dt', {}, name), h('dd', {}, value, remark ? h('small', {}, remark) : null))))
export const heading = (title, remark, ...more) => h('div', {class: 'heading'},
  h('div', {}, h('h1', {}, title), remark ? h('p', {class: 'soft'}, remark) : null), more)
export const picker = (title, options, chosen, choose) => h('label', {}, title,
  h('select', {onchange: (event) => choose(event.target.value)},
    options.map(([value, text]) => h('option', {value, selected: value === chosen}, text))))
export const message = () => h('p', {class: 'said', role: 'status'})

/** Say what became of an action, or why it failed. */
export async function attempt(said, action) {
  try {
    said.replaceChildren(await action() ?? '')
    return true
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error)
    said.replaceChildren(h('span', {class: 'bad'}, error.message))
    return false
  }
}

/** A table; columns whose name begins with # hold numbers. On a phone each row becomes a block. */
export function table(caption, columns, rows) {
  const named = columns.map((name) => name.replace('#', ''))
  const look = (at) => columns[at].startsWith('#') ? 'number' : null
  const cell = (content, at) => at === 0
    ? h('th', {scope: 'row', class: look(at)}, content)
    : h('td', {class: look(at), 'data-name': named[at]}, content)
  const heads = named.map((name, at) => name
    ? h('th', {scope: 'col', class: look(at)}, name) : h('td', {}))
  return h('div', {class: 'card scroll', tabindex: '0', role: 'region', 'aria-label': caption},
    h('table', {}, h('thead', {}, h('tr', {}, heads)),
      h('tbody', {}, rows.map((row) => h('tr', {}, row.map(cell))))))
}

/** A part of a page that loads by itself: what is missing is said there, and the rest is shown. */
export function part(load) {
  const place = h('div', {}, h('p', {class: 'soft'}, 'Loading'))
  load().then((content) => place.replaceChildren(...[content].flat(3).filter(Boolean)), (error) => {
    if (!(error instanceof Problem)) console.error(error)
    place.replaceChildren(missing(error.message))
  })
  return place
}

export function pager(page, go) {
  const last = Math.min(page.offset + page.page, page.total)
  return h('div', {class: 'row'},
    h('button', {disabled: page.offset === 0, onclick: () => go(Math.max(0, page.offset - page.page))},
      'Earlier'),
    h('span', {class: 'soft'},
      page.total ? `${number(page.offset + 1)} to ${number(last)} of ${number(page.total)}` : 'none'),
    h('button', {disabled: last >= page.total, onclick: () => go(page.offset + page.page)}, 'Later'))
}

/** The thumbnail that a job made of a photo; a word where there is none. */
export function picture(name, {sha256, shard}, alt, pictured = true) {
  const none = () => h('div', {class: 'none'}, 'no thumbnail')
  if (!pictured) return none()
  const image = h('img', {src: address('data/thumbnail', {name, sha256, shard}), loading: 'lazy', alt,
    onerror: () => image.replaceWith(none())})
  return image
}

/** A card of its own width: on a phone it is moved sideways, with fingers or arrow keys. */
export const wide = (title, ...content) =>
  h('div', {class: 'card scroll', tabindex: '0', role: 'region', 'aria-label': title}, content)

// Charts

const WIDTH = 560, HEIGHT = 200, LEFT = 58, BOTTOM = 26

/** Lines over one axis: series [{points: [[x, y]], style, name}]; x is written by `place`. */
export function lines(title, series, format = (value) => number(value), place = null) {
  const points = series.flatMap((one) => one.points)
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y)
  if (!points.length) return h('p', {class: 'soft small'}, 'Nothing to draw yet.')
  const low = Math.min(...ys), high = Math.max(...ys)
  // An axis from 0, unless the differences would then not be seen.
  const floor = high > low && low > high / 2 ? low - (high - low) * .15 : Math.min(0, low)
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), floor, high === floor ? floor + 1 : high]
  const along = (x) => LEFT + (x1 > x0 ? (x - x0) / (x1 - x0) : .5) * (WIDTH - LEFT - 10)
  const at = ([x, y]) => [along(x),
    10 + (1 - (y - y0) / (y1 - y0)) * (HEIGHT - BOTTOM - 10)]
  const rule = (y) => [
    h('line', {class: 'grid', x1: LEFT, x2: WIDTH - 10, y1: at([x0, y])[1], y2: at([x0, y])[1]}),
    h('text', {x: LEFT - 8, y: at([x0, y])[1] + 4, 'text-anchor': 'end'}, format(y))]
  const anchors = x1 > x0 ? [[x0, 'start'], [x1, 'end']] : [[x0, 'middle']]
  const ends = place ? anchors.map(([x, anchor]) =>
    h('text', {x: along(x), y: HEIGHT - 6, 'text-anchor': anchor}, place(x))) : []
  const path = (one) => h('polyline', {class: `line ${one.style ?? ''}`,
    points: one.points.map((point) => at(point).map((value) => value.toFixed(1)).join(',')).join(' ')})
  const dots = (one) => one.points.length > 40 ? [] : one.points.map((point) =>
    h('circle', {class: `dot ${one.style ?? ''}`, cx: at(point)[0], cy: at(point)[1], r: 2.5}))
  const names = series.filter((one) => one.name)
  return [h('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': title},
    (format(y1) === format((y0 + y1) / 2) ? [y0, y1] : [y0, (y0 + y1) / 2, y1]).map(rule), ends,
    series.map((one) => [path(one), dots(one)])),
    names.length > 1 ? h('p', {class: 'legend'}, names.map((one) =>
      h('span', {class: one.style ?? 'first'}, one.name))) : null]
}

/** An estimate with its interval on a scale that all rows share. */
export function whisker(value, low, high, [from, until]) {
  const at = (x) => 4 + (x - from) / ((until - from) || 1) * 112
  return h('svg', {class: 'whisker', viewBox: '0 0 120 14', 'aria-hidden': 'true'},
    h('line', {class: 'grid', x1: 4, x2: 116, y1: 7, y2: 7}),
    low === undefined ? null : h('line', {class: 'range', x1: at(low), x2: at(high), y1: 7, y2: 7}),
    h('circle', {class: 'dot', cx: at(value), cy: 7, r: 4}))
}

/** Bars on one time axis: rows [{name, from, until, look, text}], times in milliseconds. */
export function timeline(title, rows) {
  const begun = rows.filter((row) => row.from)
  if (!begun.length) return h('p', {class: 'soft'}, 'Nothing has started yet.')
  const first = Math.min(...begun.map((row) => row.from)),
    last = Math.max(...begun.map((row) => row.until), first + 1000)
  const at = (time) => 190 + (time - first) / (last - first) * 700
  const step = 24
  return h('svg', {viewBox: `0 0 1000 ${begun.length * step + 6}`, role: 'img', 'aria-label': title,
    class: 'wide'},
    begun.map((row, place) => [
      h('text', {x: 182, y: place * step + 17, 'text-anchor': 'end'}, row.name),
      h('line', {class: 'grid', x1: 190, x2: 890, y1: place * step + 13, y2: place * step + 13}),
      h('rect', {class: `bar ${row.look ?? ''}`, x: at(row.from), y: place * step + 5, rx: 3, height: 16,
        width: Math.max(3, at(row.until) - at(row.from))}),
      h('text', {x: Math.min(at(row.until), 890) + 8, y: place * step + 17}, row.text)]))
}
