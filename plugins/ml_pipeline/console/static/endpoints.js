// Endpoints: what serves, its traffic, cost and drift; and one photo tried by hand.

import {ask, badge, card, h, heading, lines, link, missing, number, part, percent, picker, readable, table,
  tiles, to, usd, when} from './elements.js'

const LOOKS = {InService: 'good', Failed: 'bad', OutOfService: 'bad', Updating: 'warn', Creating: 'warn',
  RollingBack: 'warn'}
const VERDICTS = {quiet: 'good', alarm: 'bad', proposal: 'bad'}
const WORDS = {InService: 'in service', OutOfService: 'out of service', RollingBack: 'rolling back'}
const PERIODS = [['3', 'the last 3 hours'], ['24', 'the last day'], ['168', 'the last week']]
const ANSWERING = ['InService', 'Updating', 'RollingBack', 'SystemUpdating']
const status = (name) => badge(WORDS[name] ?? readable(name).toLowerCase(), LOOKS[name])
const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString('en-GB', {timeStyle: 'short'})

export async function endpointsPage([name]) {
  if (name) return [link(['endpoints'], '← All endpoints', 'back'), part(() => oneEndpoint(name)),
    h('h2', {}, 'Drift'), part(() => drift(name))]
  const {endpoints} = await ask('endpoints')
  return [heading('Endpoints', 'What answers now, and what it costs.'), endpoints.length
    ? table('Endpoints', ['endpoint', 'state', 'changed', ''], endpoints.map((row) =>
      [link(['endpoints', row.name], row.name), status(row.status), when(row.changed),
        link(['try', row.name], 'Try a photo')]))
      : card(null, h('p', {}, 'No endpoint: deploy a version on the page Models.'))]
}

async function oneEndpoint(name) {
  const place = h('div')
  const draw = async (hours) =>
    place.replaceChildren(...shown(await ask('endpoints/one', {name, hours}), hours, draw))
  await draw('3')
  return place
}

function shown(found, hours, draw) {
  const traffic = found.traffic, total = (series) => series.reduce((sum, [, value]) => sum + value, 0)
  const requests = total(traffic.requests),
    served = (versions) => versions.map(({group, version}, at) =>
      [at ? ', ' : '', link(['models', group, 'classes', version], `v${version}`)])
  const errors = total(traffic.client_errors) + total(traffic.server_errors)
  const alarms = found.alarms.filter((row) => row.state === 'ALARM')
  const mean = traffic.latency_us.length ? total(traffic.latency_us) / traffic.latency_us.length / 1000 : null
  const chart = (title, series, format) =>
    card(title, lines(title, series, format, hours === '3' || hours === '24' ? clock
      : (at) => when(1000 * at)))
  return [h('div', {class: 'heading'},
    h('div', {}, h('h1', {}, found.name),
      h('p', {class: 'soft'}, status(found.status), ` since ${when(found.created)}`)),
    h('div', {class: 'row'}, picker('Show', PERIODS, hours, draw),
      link(['try', found.name], 'Try a photo', 'button main'))),
    found.reason ? missing(found.reason) : null,
    found.pending ? h('p', {class: 'missing'}, 'A rollout is under way', found.pending_versions.length
      ? [' to ', served(found.pending_versions)] : '', '.') : null,
    alarms.map((row) => missing(`Alarm ${row.name}: ${row.reason}`)),
    tiles(['Version', found.versions.length ? served(found.versions) : 'not in the registry',
      found.pending ? 'a rollout is under way' : 'all of the traffic'],
      ['Requests', number(requests, 0), PERIODS.find(([value]) => value === hours)[1]],
      ['Latency', mean === null ? '–' : `${number(mean, 0)} ms`, 'mean, of the model'],
      ['Errors', requests ? percent(errors / requests) : number(errors, 0),
        `${number(total(traffic.server_errors), 0)} of the server`],
      ['Cost', `${usd(found.usd_per_hour)} an hour`, `${usd(found.usd_so_far)} so far`]),
    h('div', {class: 'pair'}, chart('Requests', [{points: traffic.requests}], (value) => number(value, 0)),
      chart('Latency of the model', [{points: traffic.latency_us.map(([at, value]) => [at, value / 1000])}],
        (value) => `${number(value, 0)} ms`),
      chart('Errors', [{points: traffic.client_errors, name: 'refused requests', style: 'third'},
        {points: traffic.server_errors, name: 'server errors', style: 'second'}],
        (value) => number(value, 0))),
    h('h2', {}, 'Instances'), table('Instances', ['variant', 'machine', '#running', '#wanted', '#weight'],
      found.variants.map((row) =>
        [row.name, row.instance_type ?? '–', number(row.instances), number(row.wanted), number(row.weight)])),
    h('p', {class: 'soft'}, found.scaling
      ? `Scales with its load, from ${found.scaling[0]} to ${found.scaling[1]} instances.`
      : 'Does not scale: the number of instances is fixed.',
      found.capture
        ? ` ${found.capture.percent} % of the requests are kept${found.capture.files === null
          ? '; their files cannot be read: '
          : `, ${number(found.capture.files)} files since yesterday, in `}`
        : ' No request is kept, so watch cannot look at them.',
      found.capture ? h('code', {}, found.capture.uri) : null),
    h('h2', {}, 'Alarms'), found.alarms.length
      ? table('Alarms', ['alarm', 'state', 'why'], found.alarms.map((row) =>
        [row.name, row.state === 'ALARM' ? badge('on', 'bad') : row.state === 'OK' ? badge('off', 'good')
          : badge('no data'), row.reason])) : h('p', {class: 'soft'}, 'None.')]
    .flat(3).filter(Boolean)
}

async function drift(name) {
  const {looks, proposals} = await ask('endpoints/looks', {name})
  if (!looks.length) {
    return missing('no one has looked at the traffic yet: the DAG watch does it, or make watch')
  }
  const time = (look) => Date.parse(look.ended) / 1000
  const series = (key, words, style) =>
    ({name: words, style, points: looks.filter((look) => look[key] !== null).map((look) =>
      [time(look), look[key]])})
  const day = (at) => new Date(1000 * at).toLocaleDateString('en-GB', {dateStyle: 'medium'})
  return [h('p', {class: 'soft'},
    `Looks at the traffic: ${looks.length}. Proposals to train again: ${proposals}.`),
    h('div', {class: 'pair'},
      card('Accuracy on the traffic',
        lines('Accuracy on the traffic',
          [series('accuracy', 'estimated', 'first'),
            series('true', 'true, from labels', 'second')].filter((one) => one.points.length),
          (value) => percent(value, 0), day)),
      card('Unknown photos', lines('Unknown photos', [series('unknown', '', 'third')],
        (value) => percent(value, 0), day))),
    table('Looks', ['look', 'until', '#photos', '#estimated accuracy', '#unknown', 'verdict', 'why'],
      [...looks].reverse().map((look) =>
        [number(look.number), when(look.ended), number(look.photos),
          [percent(look.accuracy), look.low === null ? null
            : h('small', {class: 'soft'}, `${percent(look.low)} to ${percent(look.high)}`)],
          percent(look.unknown), badge(look.verdict, VERDICTS[look.verdict]), look.reason]))]
}

export async function tryPage([name]) {
  const {endpoints} = await ask('endpoints')
  const alive = endpoints.filter((row) => ANSWERING.includes(row.status)).map((row) => row.name)
  if (!alive.length) return [heading('Try', 'No endpoint is in service.'),
    card(null, h('p', {}, 'Deploy a version on the page Models.'))]
  let chosen = alive.includes(name) ? name : alive[0], last = null
  const result = h('div', {'aria-live': 'polite'},
    card(null, h('p', {class: 'soft'}, 'The answer appears here.'))), preview = h('div')
  const send = async (file) => {
    if (!file) return
    last = file
    const url = URL.createObjectURL(file)
    preview.replaceChildren(h('img',
      {src: url, alt: 'the photo that is asked about', onload: () => URL.revokeObjectURL(url)}))
    result.replaceChildren(h('p', {class: 'soft'}, 'Asking'))
    const options = {method: 'POST', body: file,
      headers: {'Content-Type': 'application/octet-stream',
        'Photo-Type': file.type.startsWith('image/') ? file.type : 'image/jpeg'}}
    try {
      const found = await ask('endpoints/ask', {name: chosen}, options)
      result.replaceChildren(...answer(found, chosen), part(() => heatMap(chosen, options)))
    } catch (error) { result.replaceChildren(missing(error.message)) }
  }
  const input = h('input', {type: 'file', accept: 'image/*',
    onchange: (event) => send(event.target.files[0])})
  const drop = h('div', {class: 'drop', ondragover: (event) => { event.preventDefault()
    drop.classList.add('over') },
    ondragleave: () => drop.classList.remove('over'),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove('over')
      send(event.dataTransfer.files[0]) }},
    h('p', {}, 'Drop a photo here, paste one, or choose a file.'), h('label', {}, 'Photo', input), preview)
  document.onpaste = (event) => { if (drop.isConnected) send([...event.clipboardData.files][0]) }
  const pick = picker('Endpoint', alive.map((one) => [one, one]), chosen, (one) => { chosen = one
    send(last) })
  return [heading('Try', 'Ask an endpoint about a photo. It counts as a test, not as traffic.', pick),
    h('div', {class: 'pair'}, drop, result)]
}

function answer(found, name) {
  const body = found.answer, first = body.predictions?.[0] ?? {}
  if (first.error) return [missing(first.error.message)]
  const top = (first.top ?? []).slice(0, 5), best = top[0]
  const verdict = first.unknown ? ['unknown', 'It looks like no class that the model was taught.']
    : first.abstain ? ['not sure', `It is not sure enough, and would say ${readable(best?.class ?? '')}.`]
    : [readable(best?.class ?? 'no answer'), null]
  return [h('section', {class: 'card'},
    h('h2', {class: first.unknown || first.abstain ? 'bad answer' : 'answer'}, verdict[0]),
    verdict[1] ? h('p', {}, verdict[1]) : null,
    h('ol', {class: 'bars'}, top.map((row) => h('li', {}, h('span', {}, readable(row.class)),
      h('meter', {min: 0, max: 1, value: row.probability, 'aria-label': readable(row.class)}),
      h('strong', {}, percent(row.probability))))),
    h('p', {class: 'soft small'},
      `Answered in ${number(found.milliseconds, 0)} ms, the way to the endpoint included`,
      body.model ? `, by ${body.model.name ?? name} ${String(body.model.version ?? '').slice(0, 12)}` : '',
      '.'))]
}

async function heatMap(name, options) {
  const url = URL.createObjectURL(await ask('endpoints/ask', {name, heat_map: true}, options))
  return card('Where it looked',
    h('img', {class: 'heat', src: url, alt: 'heat map of the answer',
      onload: () => URL.revokeObjectURL(url)}),
    h('p', {class: 'soft small'}, 'Red parts speak for the answer, blue ones do not.'))
}
