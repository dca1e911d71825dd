// The console. Text from anywhere enters the page as text nodes only: nothing here parses HTML.

const base = new URL('.', document.baseURI)
const airflow = new URL('..', base)

/** An element: h('a', {href: '#'}, 'text', child, ...). Properties that begin with "on" are listeners. */
function h(tag, properties = {}, ...children) {
  const space = ['svg', 'path', 'line', 'polyline', 'rect', 'text', 'circle', 'title'].includes(tag) && properties.svg !== false
  const element = space ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false || name === 'svg') continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

class Problem extends Error {}

async function ask(path, query = {}, options = {}) {
  const url = new URL(`api/${path}`, base)
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '' && value !== false) url.searchParams.set(name, value)
  }
  let response
  try {
    response = await fetch(url, options)
  } catch {
    throw new Problem('Airflow does not answer: is the api-server up?')
  }
  if (response.status === 401) throw new Problem('You are logged out: log in to Airflow and reload this page.')
  const body = await response.json().catch(() => ({}))
  if (!response.ok) throw new Problem(typeof body.detail === 'string' ? body.detail : `the server answers ${response.status}`)
  return body
}

/** Start a DAG as the user, through Airflow's own API with its own permissions. */
async function start(dag, conf) {
  const response = await fetch(new URL(`api/v2/dags/${dag}/dagRuns`, airflow), {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({logical_date: null, conf}),
  })
  const body = await response.json().catch(() => ({}))
  if (response.status === 403) throw new Problem(`You may not start ${dag}: ask for the permission to run it.`)
  if (response.status === 404) throw new Problem(`There is no DAG ${dag}.`)
  if (!response.ok) throw new Problem(typeof body.detail === 'string' ? body.detail : JSON.stringify(body.detail ?? body))
  return body
}

const percent = (value, digits = 1) => value === null || value === undefined ? '–' : `${(100 * value).toFixed(digits)} %`
const number = (value, digits = 2) => value === null || value === undefined ? '–' : Number(value).toLocaleString('en', {maximumFractionDigits: digits})
const when = (time) => time ? new Date(time).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short'}) : '–'
const readable = (name) => String(name).replaceAll('_', ' ')
const link = (hash, text) => h('a', {href: `#/${hash.map(encodeURIComponent).join('/')}`}, text)
const span = (seconds) => seconds === null || seconds === undefined ? '–'
  : seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`

const missing = (text) => h('p', {class: 'missing', role: 'status'}, text)
const tiles = (...entries) => h('dl', {class: 'tiles'}, entries.filter(Boolean).map(([name, value, remark]) =>
  h('div', {}, h('dt', {}, name), h('dd', {}, value, remark ? h('small', {}, remark) : null))))

/** A table; columns whose name begins with # hold numbers. */
function table(caption, columns, rows) {
  const cell = (content, at) => h(at === 0 ? 'th' : 'td', {class: columns[at].startsWith('#') ? 'number' : null, scope: at === 0 ? 'row' : null}, content)
  const heads = columns.map((name) => h('th', {scope: 'col', class: name.startsWith('#') ? 'number' : null}, name.replace('#', '')))
  return h('div', {class: 'card', tabindex: '0', role: 'region', 'aria-label': caption},
    h('table', {}, h('thead', {}, h('tr', {}, heads)), h('tbody', {}, rows.map((row) => h('tr', {}, row.map(cell))))))
}

/** A part of a page that loads by itself: what is missing is said there, and the rest is shown. */
function part(load) {
  const place = h('div', {}, h('p', {class: 'soft'}, 'Loading'))
  load().then((content) => place.replaceChildren(...[content].flat()), (error) => {
    if (!(error instanceof Problem)) console.error(error)
    place.replaceChildren(missing(error.message))
  })
  return place
}

function lines(title, series, format = (value) => number(value)) {
  const width = 560, height = 190, left = 56, bottom = 24
  const points = series.flatMap((one) => one.points)
  if (points.length < 2) return h('p', {class: 'soft small'}, `${title}: nothing to draw yet.`)
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y)
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(0, ...ys), Math.max(...ys) || 1]
  const at = ([x, y]) => [left + (x - x0) / ((x1 - x0) || 1) * (width - left - 8), 8 + (1 - (y - y0) / ((y1 - y0) || 1)) * (height - bottom - 8)]
  const grid = [y0, (y0 + y1) / 2, y1].map((y) => [h('line', {class: 'grid', x1: left, x2: width - 8, y1: at([x0, y])[1], y2: at([x0, y])[1]}),
    h('text', {x: left - 6, y: at([x0, y])[1] + 4, 'text-anchor': 'end'}, format(y))])
  return h('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': title}, h('title', {}, title), grid.flat(),
    series.map((one) => h('polyline', {class: `line ${one.style ?? ''}`, points: one.points.map((point) => at(point).map((value) => value.toFixed(1)).join(',')).join(' ')})))
}

/** Parallel coordinates of trials: one line per trial over its hyperparameters and its value, the best in another colour. */
function parallel(trials, objective) {
  const done = trials.filter((trial) => trial.value !== null && trial.value !== undefined)
  if (done.length < 2) return null
  const names = [...new Set(done.flatMap((trial) => Object.keys(trial.hyperparameters)))]
    .filter((name) => new Set(done.map((trial) => trial.hyperparameters[name])).size > 1).slice(0, 8)
  const axes = [...names.map((name) => [name, (trial) => trial.hyperparameters[name]]), [objective ?? 'value', (trial) => trial.value]]
  const width = 1100, height = 260, step = (width - 120) / Math.max(1, axes.length - 1)
  const place = axes.map(([, read]) => {
    const values = done.map(read), numeric = values.every((value) => value !== '' && Number.isFinite(Number(value)))
    if (!numeric) { const order = [...new Set(values)]; return (value) => 30 + (order.indexOf(value) + .5) / order.length * (height - 60) }
    const log = values.every((value) => Number(value) > 0) && Math.max(...values) / Math.min(...values) > 30
    const scale = (value) => log ? Math.log(Number(value)) : Number(value)
    const low = Math.min(...values.map(scale)), high = Math.max(...values.map(scale))
    return (value) => height - 30 - (scale(value) - low) / ((high - low) || 1) * (height - 60)
  })
  const best = done.reduce((one, other) => other.value > one.value ? other : one)
  const path = (trial) => axes.map(([, read], at) => `${(60 + at * step).toFixed(1)},${place[at](read(trial)).toFixed(1)}`).join(' ')
  return h('div', {class: 'card', tabindex: '0', role: 'region', 'aria-label': 'Trials'}, h('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'Trials as parallel coordinates'},
    axes.map(([name], at) => [h('line', {class: 'grid', x1: 60 + at * step, x2: 60 + at * step, y1: 30, y2: height - 30}),
      h('text', {x: 60 + at * step, y: 16, 'text-anchor': 'middle'}, readable(name))]).flat(),
    done.filter((trial) => trial !== best).map((trial) => h('polyline', {class: 'thin', points: path(trial)})),
    h('polyline', {class: 'thin best', points: path(best)})))
}

function interval(figures) {
  if (!figures?.interval) return null
  const {low, high} = figures.interval
  return h('small', {class: 'soft'}, `${percent(low)} to ${percent(high)}`)
}

// Models

async function modelsPage([group, word, left, right]) {
  const {groups} = await ask('models')
  if (!groups.length) return [h('h1', {}, 'Models'), h('p', {}, 'No model yet: run train_and_deploy.')]
  const chosen = group ?? groups[0]
  const pick = h('select', {onchange: (event) => { location.hash = `#/models/${encodeURIComponent(event.target.value)}` }, 'aria-label': 'Data set'},
    groups.map((name) => h('option', {value: name, selected: name === chosen}, name)))
  const top = [h('h1', {}, 'Models'), h('div', {class: 'row'}, h('label', {}, 'Data set', pick))]
  if (word === 'compare') return [...top, part(() => comparison(chosen, left, right))]
  if (word === 'classes') return [...top, part(() => classesOf(chosen, left))]
  return [...top, part(() => modelTable(chosen))]
}

async function modelTable(group) {
  const {versions} = await ask('models/versions', {group})
  const picked = new Set()
  const button = h('button', {class: 'main', disabled: true, onclick: () => {
    const [one, other] = [...picked].sort((left, right) => left - right)
    location.hash = `#/models/${encodeURIComponent(group)}/compare/${one}/${other}`
  }}, 'Compare two')
  const serving = versions.filter((version) => version.endpoints.length)
  const newest = serving[0]
  const rows = versions.map((version) => {
    const figures = version.figures
    const box = h('input', {type: 'checkbox', 'aria-label': `choose version ${version.version}`, onchange: (event) => {
      if (event.target.checked) picked.add(version.version); else picked.delete(version.version)
      button.toggleAttribute('disabled', picked.size !== 2)
    }})
    return [h('span', {}, box, ' ', link(['models', group, 'classes', version.version], `v${version.version}`)),
      figures ? [percent(figures.accuracy), h('br'), interval(figures)] : h('span', {class: 'soft', title: version.missing}, version.metadata.accuracy ? percent(Number(version.metadata.accuracy)) : 'missing'),
      figures ? number(figures.macro_f1, 3) : '–', figures ? `${number(figures.latency_ms, 1)} ms` : '–', figures?.runtime ?? '–',
      version.metadata.dataset_version ? link(['data', version.metadata.dataset_name ?? group, version.metadata.dataset_version], version.metadata.dataset_version.slice(0, 8)) : '–',
      version.status === 'Approved' ? `approved${version.approver ? ` by ${version.approver}` : ''}` : version.status === 'Rejected' ? 'rejected' : 'waits for approval',
      version.endpoints.length ? version.endpoints.map((name) => [link(['endpoints', name], name), ' ']).flat() : '–',
      when(version.created), version.metadata.run_id ? link(['runs', version.metadata.run_id], 'run') : '–', actions(version, newest)]
  })
  return [h('div', {class: 'row'}, button), h('p', {id: 'said', role: 'status'}),
    table('Versions', ['version', '#accuracy', '#macro F1', '#one photo', 'runtime', 'data set', 'approval', 'serves', 'made', '', ''], rows)]
}

function actions(version, newest) {
  if (!version.deploy) return ''
  const word = newest && version.version < newest.version ? 'Roll back' : 'Deploy'
  return h('button', {onclick: async (event) => {
    const button = event.target
    if (button.dataset.sure !== 'yes') { button.dataset.sure = 'yes'; button.textContent = `${word} to v${version.version}?`; return }
    button.disabled = true
    const said = document.getElementById('said')
    try {
      const run = await start('deploy', version.deploy)
      said.replaceChildren(`Started ${run.dag_run_id}.`)
    } catch (error) { said.replaceChildren(h('span', {class: 'bad'}, error.message)); button.disabled = false }
  }}, word)
}

async function comparison(group, left, right) {
  const found = await ask('models/compare', {group, left, right})
  const [one, other] = [found.left, found.right]
  const figure = (name, format) => [name, format(one.figures), format(other.figures)]
  return [h('p', {}, link(['models', group], 'All versions')), h('h2', {}, `v${left} against v${right}`),
    table('Figures', ['', `#v${left}`, `#v${right}`], [figure('accuracy', (f) => [percent(f.accuracy), h('br'), interval(f)]),
      figure('top 5', (f) => percent(f.top5_accuracy)), figure('macro F1', (f) => number(f.macro_f1, 3)),
      figure('log loss', (f) => number(f.log_loss, 3)), figure('one photo', (f) => `${number(f.latency_ms, 1)} ms`), figure('runtime', (f) => f.runtime ?? '–')]),
    found.added.length ? h('p', {}, `New classes: ${found.added.map(readable).join(', ')}.`) : null,
    found.removed.length ? h('p', {}, `Classes gone: ${found.removed.map(readable).join(', ')}.`) : null,
    h('h2', {}, 'Classes that changed'),
    found.changed.length ? table('Classes that changed', ['class', `#recall v${left}`, `#recall v${right}`, '#photos'],
      found.changed.slice(0, 60).map((row) => [readable(row.name), percent(row.before, 0), percent(row.after, 0), number(row.photos)])) : h('p', {class: 'soft'}, 'None.'),
    h('h2', {}, 'Photos that only one gets right'),
    found.flips_missing ? missing(found.flips_missing) : [h('p', {}, `${found.flips} photos.`), table('Photos', ['photo', 'class', `v${left}`, `v${right}`],
      found.flipped.map((row) => [h('code', {}, row.key), readable(row.class), readable(row.before), readable(row.after)]))]].flat()
}

async function classesOf(group, version) {
  const found = await ask('models/classes', {group, version})
  const dataset = found.dataset ?? {name: group, version: found.version.metadata.dataset_version}
  const names = found.classes.map((row) => row.name)
  const mistakes = found.confusion.filter(([row, column]) => row !== column && names[row] !== undefined)
    .sort((one, other) => other[2] - one[2]).slice(0, 60)
  const figures = found.figures
  return [h('p', {}, link(['models', group], 'All versions')), h('h2', {}, `v${version}`),
    tiles(['Accuracy', percent(figures.accuracy), figures.interval ? `${percent(figures.interval.low)} to ${percent(figures.interval.high)}, ${number(figures.photos)} test photos` : null],
      ['Macro F1', number(figures.macro_f1, 3)], ['One photo', `${number(figures.latency_ms, 1)} ms`, figures.runtime], ['Calibration error', percent(figures.calibration_error)]),
    h('p', {}, link(['data', dataset.name, dataset.version, 'mistakes', version], 'Look at its mistakes')),
    h('h2', {}, 'Commonest mix-ups'), table('Mix-ups', ['this', 'was taken for', '#photos', ''], mistakes.map(([row, column, count]) =>
      [readable(names[row]), readable(names[column]), number(count), link(['data', dataset.name, dataset.version, 'cell', version, names[row], names[column]], 'photos')])),
    h('h2', {}, 'Classes'), table('Classes', ['class', '#recall', '#precision', '#photos'],
      [...found.classes].sort((one, other) => (one.recall ?? 2) - (other.recall ?? 2)).slice(0, 500).map((row) => [readable(row.name), percent(row.recall, 0), percent(row.precision, 0), number(row.photos)]))]
}

// Runs

const states = {success: 'done', failed: 'failed', running: 'running', deferred: 'waiting for AWS', queued: 'queued', skipped: 'skipped',
  upstream_failed: 'not reached', up_for_retry: 'will try again', scheduled: 'next', awaiting_input: 'waits for approval', removed: 'removed'}
const state = (name) => h('span', {class: name === 'failed' || name === 'upstream_failed' ? 'bad' : name === 'success' ? 'good' : ''}, states[name] ?? name ?? 'to come')

async function runsPage([run]) {
  return run ? [h('p', {}, link(['runs'], 'All runs')), part(() => oneRun(run))] : [h('h1', {}, 'Runs'), part(() => runTable(0))]
}

async function runTable(offset) {
  const found = await ask('runs', {offset})
  if (!found.total) return h('p', {}, 'No run of train_and_deploy yet.')
  const place = h('div')
  const draw = (page) => place.replaceChildren(table('Runs', ['run', 'state', 'data set', '#accuracy', 'endpoint', 'started', 'by'],
    page.runs.map((run) => [link(['runs', run.run_id], run.run_id), state(run.state),
      run.dataset ? link(['data', run.dataset, run.version], `${run.dataset} ${String(run.version).slice(0, 8)}`) : '–', percent(run.accuracy),
      run.endpoint ? link(['endpoints', run.endpoint], run.endpoint) : '–', when(run.start), run.by ?? '–'])), pager(page, async (at) => draw(await ask('runs', {offset: at}))))
  draw(found)
  return place
}

function pager(page, go) {
  const last = Math.min(page.offset + page.page, page.total)
  return h('div', {class: 'row'}, h('button', {disabled: page.offset === 0, onclick: () => go(Math.max(0, page.offset - page.page))}, 'Earlier'),
    h('span', {class: 'soft'}, page.total ? `${page.offset + 1} to ${last} of ${number(page.total)}` : 'none'),
    h('button', {disabled: last >= page.total, onclick: () => go(page.offset + page.page)}, 'Later'))
}

async function oneRun(run_id) {
  const place = h('div'), trialsAt = h('div'), log = h('div')
  let shown = ''
  const draw = async () => {
    const run = await ask('runs/one', {run_id})
    const text = JSON.stringify(run)
    if (text !== shown) { shown = text; place.replaceChildren(...runParts(run, log)); drawTrials(run, trialsAt, run_id) }
    if (['running', 'queued'].includes(run.state)) setTimeout(() => { if (place.isConnected) draw().catch(() => {}) }, 2000)
  }
  await draw()
  return [place, trialsAt, log]
}

function runParts(run, log) {
  const results = run.results, checked = results.check_data, evaluated = results.evaluate, plan = results.plan, bill = results.bill ?? results.report
  return [h('h1', {}, run.run_id), h('p', {class: 'soft'}, state(run.state), ` · ${when(run.start)}`, run.by ? ` · ${run.by}` : ''),
    tiles(run.dataset ? ['Data set', link(['data', run.dataset, run.version], run.dataset), String(run.version).slice(0, 8)] : null,
      evaluated ? ['Accuracy', percent(evaluated.accuracy), `${number(evaluated.photos)} test photos`] : null,
      run.endpoint ? ['Endpoint', link(['endpoints', run.endpoint], run.endpoint)] : null,
      plan || bill ? ['Cost', bill ? `$${number(bill.usd, 4)}` : '–', plan ? `planned about $${number(plan.estimate_usd, 2)}` : null] : null,
      checked?.photos ? ['Suspected labels', number(checked.suspects), `${percent(checked.suspect_share)} of ${number(checked.photos)}`] : null),
    h('p', {}, evaluated?.report_url ? h('a', {href: evaluated.report_url, target: '_blank', rel: 'noopener'}, 'Evaluation report') : null, ' ',
      checked?.report_url ? h('a', {href: checked.report_url, target: '_blank', rel: 'noopener'}, 'Data report') : null),
    results.gate ? h('p', {}, `Gate: ${results.gate.reason}`) : null,
    h('h2', {}, 'Tasks'), table('Tasks', ['task', 'state', 'started', '#took', 'job'], run.tasks.map((task) => [task.id, state(task.state), when(task.start), span(task.seconds),
      ['training', 'processing', 'transform'].includes(task.job?.kind) ? h('button', {onclick: () => showLog(run.run_id, task.id, log)}, 'Log') : ''])),
    plan || bill ? h('h2', {}, 'Plan against bill') : null, plan || bill ? bills(plan, bill) : null].filter(Boolean)
}

function bills(plan, bill) {
  const steps = [...new Set([...(plan?.steps ?? []), ...(bill?.steps ?? [])].map((row) => row.step))]
  const planned = Object.fromEntries((plan?.steps ?? []).map((row) => [row.step, row])), paid = Object.fromEntries((bill?.steps ?? []).map((row) => [row.step, row]))
  return table('Plan against bill', ['step', 'machine', '#planned', '#paid for', '#planned $', '#paid $'], steps.map((step) => {
    const row = paid[step] ?? planned[step]
    return [step, `${row.instance_count} x ${row.instance_type}`, span(planned[step]?.seconds), span(paid[step]?.billable_seconds), number(planned[step]?.usd, 4), number(paid[step]?.usd, 4)]
  }))
}

async function drawTrials(run, place, run_id) {
  if (!run.search) return place.replaceChildren()
  let trials = run.search.trials ?? []
  try { trials = (await ask('runs/trials', {run_id})).trials } catch { /* the best trials are in the result */ }
  trials = trials.map((trial, at) => ({name: trial.name ?? `trial ${at + 1}`, value: trial.value ?? trial.metrics?.valid_accuracy ?? null, seconds: trial.seconds ?? null, status: trial.status ?? 'Completed', hyperparameters: trial.hyperparameters ?? trial.searched ?? {}}))
  const names = [...new Set(trials.flatMap((trial) => Object.keys(trial.hyperparameters)))].slice(0, 8)
  place.replaceChildren(h('h2', {}, 'Trials'), parallel(trials, run.search.objective?.name) ?? '', table('Trials', ['trial', '#value', '#took', ...names.map((name) => `#${readable(name)}`)],
    trials.map((trial) => [trial.name, trial.value === null ? trial.status : number(trial.value, 4), span(trial.seconds), ...names.map((name) => {
      const value = trial.hyperparameters[name]
      return value === undefined ? '–' : Number.isFinite(Number(value)) ? Number(Number(value).toPrecision(3)).toString() : String(value)
    })])))
}

async function showLog(run_id, task_id, place) {
  place.replaceChildren(h('h2', {}, `Log of ${task_id}`), part(async () => {
    const {lines} = await ask('runs/log', {run_id, task_id})
    return lines.length ? h('div', {class: 'card'}, h('pre', {tabindex: '0'}, lines.join('\n'))) : h('p', {class: 'soft'}, 'No line yet.')
  }))
  place.scrollIntoView()
}

// Data

async function dataPage([name, version, word, model, label, prediction]) {
  const {datasets} = await ask('data')
  if (!datasets.length) return [h('h1', {}, 'Data'), h('p', {}, 'No data set yet: run train_and_deploy.')]
  const chosen = name ?? datasets[0]
  const pick = h('select', {onchange: (event) => { location.hash = `#/data/${encodeURIComponent(event.target.value)}` }},
    datasets.map((one) => h('option', {value: one, selected: one === chosen}, one)))
  const top = [h('h1', {}, 'Data'), h('div', {class: 'row'}, h('label', {}, 'Data set', pick))]
  if (!version) return [...top, part(() => versionTable(chosen))]
  const filter = {mistakes: word === 'mistakes', model: word ? model : null, label: word === 'cell' ? label : word === 'class' ? model : null, prediction: word === 'cell' ? prediction : null}
  if (word === 'class') filter.model = null
  return [...top, h('p', {}, link(['data', chosen], 'All versions')), part(() => oneVersion(chosen, version, filter))]
}

async function versionTable(name) {
  const {versions} = await ask('data/versions', {name})
  return table('Versions', ['version', '#photos', '#train', '#valid', '#test', '#classes', '#left out', 'what changed'], versions.map((row) => row.missing
    ? [h('code', {}, row.version), row.missing, '', '', '', '', '', '']
    : [link(['data', name, row.version], row.version), number(row.photos), number(row.counts.train), number(row.counts.valid), number(row.counts.test), number(row.classes), number(row.rejected), changes(row.change)]))
}

function changes(change) {
  if (!change) return 'the first'
  const words = [`${change.photos >= 0 ? '+' : ''}${number(change.photos)} photos`]
  if (change.added.length) words.push(`new: ${change.added.map(readable).join(', ')}`)
  if (change.removed.length) words.push(`gone: ${change.removed.map(readable).join(', ')}`)
  return words.join('; ')
}

async function oneVersion(name, version, filter) {
  const found = await ask('data/version', {name, version})
  const check = found.check
  return [h('h2', {}, 'Version ', h('code', {}, version)),
    tiles(['Photos', number(found.photos), Object.entries(found.counts).map(([split, count]) => `${number(count)} ${split}`).join(', ')], ['Classes', number(found.classes)], ['Left out', number(found.rejected)],
      check ? ['Suspected labels', number(check.suspects.count), percent(check.suspects.share)] : null,
      check ? ['Near-duplicates', number(check.near_duplicates.pairs), `${check.near_duplicates.across_classes} in two classes, ${check.near_duplicates.across_splits} in two splits`] : null),
    found.check_missing ? missing(found.check_missing) : null,
    check?.cannot_be_told_apart.length ? h('p', {}, `Hardly told apart: ${check.cannot_be_told_apart.slice(0, 8).map((pair) => `${pair.classes.map(readable).join(' and ')} (${percent(pair.accuracy, 0)})`).join('; ')}.`) : null,
    h('h2', {}, 'Photos'), part(() => photos(name, version, filter, found)),
    found.rejects.length ? h('details', {}, h('summary', {}, `Files left out (${found.rejected})`), table('Files left out', ['file', 'reason'], found.rejects.map((row) => [h('code', {}, row.path), row.reason]))) : null].filter(Boolean)
}

const findingNames = {suspect: 'suspected label', near_duplicate: 'near-duplicate', blurred: 'blurred', dark: 'dark', bright: 'washed out',
  low_information: 'little to see', odd_aspect: 'odd shape', odd_size: 'odd size', unlike: 'unlike its class', unreadable: 'unreadable'}

async function photos(name, version, filter, found) {
  const place = h('div'), chosen = {...filter, finding: '', split: ''}
  const labels = found.class_counts.map((row) => row.name)
  const select = (title, key, options) => h('label', {}, title, h('select', {onchange: (event) => { chosen[key] = event.target.value; draw(0) }},
    h('option', {value: ''}, 'all'), options.map(([value, text]) => h('option', {value, selected: chosen[key] === value}, text))))
  const mistakes = chosen.model ? h('label', {class: 'check'}, h('input', {type: 'checkbox', checked: chosen.mistakes, onchange: (event) => { chosen.mistakes = event.target.checked; draw(0) }}), `mistakes of model v${chosen.model}`) : null
  const bar = h('div', {class: 'row'}, select('Class', 'label', labels.slice(0, 2000).map((label) => [label, readable(label)])),
    select('Split', 'split', ['train', 'valid', 'test'].map((split) => [split, split])), select('Found', 'finding', Object.entries(findingNames)), mistakes)
  const draw = async (offset) => {
    try {
      const page = await ask('data/photos', {name, version, ...chosen, offset})
      place.replaceChildren(page.photos.length ? h('ul', {class: 'photos'}, page.photos.map((photo) => card(name, photo, page.thumbnails))) : h('p', {class: 'soft'}, 'None.'), pager(page, draw))
    } catch (error) { place.replaceChildren(missing(error.message)) }
  }
  await draw(0)
  return [bar, place]
}

function card(name, photo, pictured) {
  const url = new URL('api/data/thumbnail', base)
  url.searchParams.set('name', name)
  url.searchParams.set('sha256', photo.sha256)
  const none = () => h('div', {class: 'none'}, 'no thumbnail')
  const picture = pictured ? h('img', {src: url, loading: 'lazy', alt: `labelled ${readable(photo.label)}`, onerror: () => picture.replaceWith(none())}) : none()
  return h('li', {}, picture, h('div', {}, readable(photo.label), ` · ${photo.split}`,
    photo.prediction && photo.prediction !== photo.label ? h('div', {class: 'bad'}, `taken for ${readable(photo.prediction)}`) : null,
    photo.findings.map((one) => h('div', {class: 'bad'}, findingNames[one.kind] ?? one.kind, one.suggestion ? `: ${readable(one.suggestion)}?` : '')),
    h('code', {class: 'soft'}, photo.path || photo.key)))
}

// Endpoints

async function endpointsPage([name]) {
  const {endpoints} = await ask('endpoints')
  const top = [h('h1', {}, name ?? 'Endpoints')]
  if (!name) return [...top, endpoints.length ? table('Endpoints', ['endpoint', 'state', 'changed', ''], endpoints.map((row) => [link(['endpoints', row.name], row.name), row.status, when(row.changed), link(['try', row.name], 'Try it')])) : h('p', {}, 'No endpoint.')]
  return [...top, part(() => oneEndpoint(name))]
}

async function oneEndpoint(name) {
  const found = await ask('endpoints/one', {name})
  const traffic = found.traffic, total = (series) => series.reduce((sum, [, value]) => sum + value, 0)
  return [tiles(['State', found.status, found.pending ? 'a rollout is under way' : found.reason], ['Requests', number(total(traffic.requests), 0), 'in the last 3 hours'],
    ['Errors', number(total(traffic.client_errors) + total(traffic.server_errors), 0), `${number(total(traffic.server_errors), 0)} of the server`],
    ['Cost', `$${number(found.usd_per_hour, 3)} an hour`, `$${number(found.usd_so_far)} so far`]),
    h('p', {}, link(['try', name], 'Try a photo')),
    h('div', {class: 'pair'}, h('div', {class: 'card'}, h('h3', {}, 'Requests'), lines('Requests', [{points: traffic.requests}], (value) => number(value, 0))),
      h('div', {class: 'card'}, h('h3', {}, 'Latency'), lines('Latency of the model', [{points: traffic.latency_us.map(([at, value]) => [at, value / 1000])}], (value) => `${number(value, 0)} ms`))),
    h('h2', {}, 'Instances'), table('Instances', ['variant', 'machine', '#running', '#wanted', '#weight'], found.variants.map((row) => [row.name, row.instance_type ?? '–', number(row.instances), number(row.wanted), number(row.weight)])),
    h('p', {class: 'soft'}, `Config ${found.config}. Requests are ${found.capture ? '' : 'not '}captured.`),
    h('h2', {}, 'Alarms'), found.alarms.length ? table('Alarms', ['alarm', 'state', 'why'], found.alarms.map((row) => [row.name, row.state === 'ALARM' ? h('span', {class: 'bad'}, 'on') : row.state === 'OK' ? 'off' : 'no data', row.reason])) : h('p', {class: 'soft'}, 'None.')]
}

// Try

async function tryPage([name]) {
  const {endpoints} = await ask('endpoints')
  const alive = endpoints.filter((row) => ['InService', 'Updating'].includes(row.status)).map((row) => row.name)
  if (!alive.length) return [h('h1', {}, 'Try'), h('p', {}, 'No endpoint is in service.')]
  const chosen = h('select', {}, alive.map((one) => h('option', {value: one, selected: one === name}, one)))
  const result = h('div', {'aria-live': 'polite'}), preview = h('div')
  const send = async (file) => {
    if (!file) return
    const url = URL.createObjectURL(file)
    preview.replaceChildren(h('img', {src: url, alt: 'the photo that is asked about', onload: () => URL.revokeObjectURL(url)}))
    result.replaceChildren(h('p', {class: 'soft'}, 'Asking'))
    try {
      const found = await ask('endpoints/ask', {name: chosen.value}, {method: 'POST', body: file, headers: {'Content-Type': 'application/octet-stream', 'Photo-Type': file.type || 'image/jpeg'}})
      result.replaceChildren(...answer(found))
    } catch (error) { result.replaceChildren(missing(error.message)) }
  }
  const input = h('input', {type: 'file', accept: 'image/*', onchange: (event) => send(event.target.files[0])})
  const drop = h('div', {class: 'drop', ondragover: (event) => { event.preventDefault(); drop.classList.add('over') }, ondragleave: () => drop.classList.remove('over'),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove('over'); send(event.dataTransfer.files[0]) }}, h('p', {}, 'Drop a photo here, paste one, or choose a file.'), h('label', {}, 'Photo', input), preview)
  document.onpaste = (event) => { if (drop.isConnected) send([...event.clipboardData.files][0]) }
  return [h('h1', {}, 'Try'), h('div', {class: 'row'}, h('label', {}, 'Endpoint', chosen)), h('div', {class: 'pair'}, drop, result)]
}

function answer(found) {
  const body = Array.isArray(found.answer) ? found.answer[0] : found.answer
  const classes = body?.top ?? body?.predictions ?? Object.entries(body?.probabilities ?? {})
  const rows = (Array.isArray(classes) ? classes : []).map((row) => Array.isArray(row) ? row : [row.label ?? row.class ?? row.name, row.probability ?? row.score])
    .sort((one, other) => other[1] - one[1]).slice(0, 5)
  const unsure = body?.unknown || body?.abstain || body?.prediction === null
  return [h('p', {}, unsure ? h('strong', {class: 'bad'}, 'unknown: it is not sure enough') : h('strong', {}, readable(body?.prediction ?? body?.label ?? rows[0]?.[0] ?? 'no answer'))),
    rows.length ? table('Classes', ['class', '', '#probability'], rows.map(([name, value]) => [readable(name), h('meter', {min: 0, max: 1, value, 'aria-label': readable(name)}), percent(value)])) : h('div', {class: 'card'}, h('pre', {}, JSON.stringify(found.answer, null, 1))),
    h('p', {class: 'soft'}, `Answered in ${number(found.milliseconds, 0)} ms, the way to the endpoint included.`)]
}

// Pages

const pages = {models: ['Models', modelsPage], runs: ['Runs', runsPage], data: ['Data', dataPage], endpoints: ['Endpoints', endpointsPage], try: ['Try', tryPage]}

async function show() {
  const parts = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decodeURIComponent)
  const [name, ...rest] = parts.length && pages[parts[0]] ? parts : ['models']
  const page = document.getElementById('page'), at = location.hash
  document.title = `${pages[name][0]} · ML pipeline`
  document.getElementById('nav').replaceChildren(...Object.entries(pages).map(([key, [title]]) => h('a', {href: `#/${key}`, 'aria-current': key === name ? 'page' : null}, title)))
  let content
  try { content = await pages[name][1](rest) } catch (error) {
    if (!(error instanceof Problem)) console.error(error)
    content = [h('h1', {}, pages[name][0]), missing(error.message)]
  }
  if (location.hash === at) page.replaceChildren(...content.filter(Boolean))
}

addEventListener('hashchange', () => { show().then(() => document.getElementById('page').focus({preventScroll: true})) })
show()
