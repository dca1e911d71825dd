// Runs: the list, and one run while it happens: tasks, trials, learning curves, log, plan against bill.

import {ask, badge, card, h, heading, link, missing, number, outside, pager, part, percent, readable, span,
  table, tiles, timeline, usd, when, wide} from './elements.js'
import {curves} from './shared.js'

const STATES = {success: ['done', 'good'], failed: ['failed', 'bad'], running: ['running', 'warn'],
  queued: ['queued', 'plain'],
  deferred: ['waits for AWS', 'warn'], skipped: ['skipped', 'plain'], upstream_failed: ['not reached', 'bad'],
  up_for_retry: ['will try again', 'warn'], scheduled: ['next', 'plain'],
  awaiting_input: ['waits for approval', 'warn'],
  removed: ['removed', 'plain']}
const state = (name) => badge(...(STATES[name] ?? [name ?? 'to come', 'plain']))
// <job>-002-<hash> of a job per trial, <job>/trial-002 of a packed search.
const NUMBERED = /-0*(\d+)(?:-[0-9a-f]{8})?$/
const ALIVE = ['running', 'queued']

export async function runsPage([run]) {
  if (run) return [link(['runs'], '← All runs', 'back'), part(() => oneRun(run))]
  return [heading('Runs', 'What each run of train_and_deploy made, and what it cost.'), part(runTable)]
}

async function runTable() {
  const found = await ask('runs', {offset: 0})
  if (!found.total) return card(null, h('p', {}, 'No run of train_and_deploy yet.'))
  const place = h('div')
  const line = (run) => [link(['runs', run.run_id], when(run.start)), state(run.state),
    run.dataset ? [link(['data', run.dataset, run.version], run.dataset),
      h('small', {class: 'soft'}, String(run.version).slice(0, 8))] : '–',
    percent(run.accuracy), run.endpoint ? link(['endpoints', run.endpoint], run.endpoint) : '–', usd(run.usd),
    span(run.end ? (new Date(run.end) - new Date(run.start)) / 1000 : null), run.by ?? '–']
  const draw = (page) => place.replaceChildren(
    table('Runs', ['started', 'state', 'data set', '#accuracy', 'endpoint', '#cost', '#took', 'by'],
      page.runs.map(line)),
    pager(page, async (at) => draw(await ask('runs', {offset: at}))))
  draw(found)
  return place
}

/** A run that is drawn again whenever something about it has changed. */
async function oneRun(run_id) {
  const place = h('div'), trials = h('div'), curve = h('div'), log = h('div')
  let shown = '', drawn = ''
  const draw = async () => {
    const run = await ask('runs/one', {run_id}), text = JSON.stringify(run)
    if (text !== shown) place.replaceChildren(...summary(run, log))
    if (text !== shown || ALIVE.includes(run.state)) await drawTrials(run, trials)
    const trained = run.tasks.find((task) => task.id === 'train' && task.start)
    if (trained && drawn !== trained.state) {
      drawn = trained.state === 'success' ? 'success' : ''
      curve.replaceChildren(h('h2', {}, 'Learning curves'), part(() => curves([['', run_id]])))
    }
    shown = text
    if (ALIVE.includes(run.state)) setTimeout(() => { if (place.isConnected) draw().catch(() => {}) }, 2000)
  }
  await draw()
  return [place, log, trials, curve]
}

function summary(run, log) {
  const results = run.results, checked = results.check_data, evaluated = results.evaluate
  const plan = results.plan, bill = results.bill ?? results.report, now = Date.now()
  // Before Airflow 3.3 a task that waits for a person is deferred, as one that waits for AWS.
  const tasks = run.tasks.map((task) =>
    task.id === 'approve' && task.state === 'deferred' ? {...task, state: 'awaiting_input'} : task)
  const timed = tasks.map((task) =>
    ({name: readable(task.id), from: task.start ? Date.parse(task.start) : null,
      until: task.end ? Date.parse(task.end) : now, look: task.state,
      text: task.end ? span((Date.parse(task.end) - Date.parse(task.start)) / 1000) : 'now'}))
  const failed = tasks.filter((task) => task.state === 'failed')
  return [h('div', {class: 'heading'},
    h('div', {}, h('h1', {}, run.dataset ? `Run on ${readable(run.dataset)}` : 'Run'),
      h('p', {class: 'soft'}, state(run.state),
        ` ${when(run.start)}${run.by ? ` by ${run.by}` : ''} · ${run.run_id}`)),
    h('div', {class: 'row'}, outside(evaluated?.report_url, 'Evaluation report'),
      outside(checked?.report_url, 'Data report'))),
    tiles(run.dataset ? ['Data set', link(['data', run.dataset, run.version], run.dataset),
      `version ${String(run.version).slice(0, 8)}`] : null,
      evaluated ? ['Accuracy', percent(evaluated.accuracy), `${number(evaluated.photos)} test photos`] : null,
      run.endpoint ? ['Endpoint', link(['endpoints', run.endpoint], run.endpoint)] : null,
      plan || bill ? ['Cost', usd(bill?.usd), plan ? `${usd(plan.estimate_usd)} planned` : null] : null,
      checked?.photos ? ['Suspected labels', number(checked.suspects),
        `${percent(checked.suspect_share)} of ${number(checked.photos)}`] : null),
    failed.length ? missing(`Failed: ${failed.map((task) =>
      readable(task.id)).join(', ')}. Its log says why.`)
      : null,
    results.gate ? h('p', {}, results.gate.passed ? badge('passed the gate', 'good')
      : badge('stopped at the gate', 'bad'), ` ${results.gate.reason}`) : null,
    h('h2', {}, 'Tasks'), wide('Tasks in the order they happened',
      timeline('Tasks in the order they happened', timed)),
    h('details', {}, h('summary', {}, 'Tasks and their logs'),
      table('Tasks', ['task', 'state', 'started', '#took', 'job'], tasks.map((task) =>
        [readable(task.id), state(task.state), when(task.start), span(task.seconds),
          ['training', 'processing', 'transform'].includes(task.job?.kind)
            ? h('button', {onclick: () => showLog(run.run_id, task.id, log)}, `Log of ${readable(task.id)}`)
            : '–']))),
    plan || bill ? [h('h2', {}, 'Plan against bill'), bills(plan, bill)] : null].flat(3).filter(Boolean)
}

function bills(plan, bill) {
  const planned = Object.fromEntries((plan?.steps ?? []).map((row) => [row.step, row]))
  const paid = Object.fromEntries((bill?.steps ?? []).map((row) => [row.step, row]))
  const steps = [...new Set([...Object.keys(planned), ...Object.keys(paid)])]
  const total = ['all together', '', '', '', h('strong', {}, usd(plan?.estimate_usd)),
    h('strong', {}, usd(bill?.usd))]
  return [bill ? null : missing('The bill is not there yet: the run makes it at its end.'),
    table('Plan against bill', ['step', 'machine', '#planned', '#paid for', '#planned cost', '#paid'],
      [...steps.map((step) => {
        const row = paid[step] ?? planned[step]
        return [readable(step), `${row.instance_count} × ${row.instance_type}`, span(planned[step]?.seconds),
          span(paid[step]?.billable_seconds),
          usd(planned[step]?.usd), usd(paid[step]?.usd)]
      }), total])]
}

async function drawTrials(run, place) {
  let found = {trials: run.search?.trials ?? [], objective: run.search?.objective}, gone = null
  try { found = await ask('runs/trials', {run_id: run.run_id}) } catch (error) { gone = error.message }
  if (!found.trials.length) return place.replaceChildren()
  const trials = found.trials.map((trial, at) =>
    ({name: trial.name?.match(NUMBERED)?.[1] ?? trial.name ?? `${at + 1}`,
      status: trial.status ?? 'Completed', value: trial.value ?? trial.metrics?.valid_accuracy ?? null,
      seconds: trial.seconds ?? null,
      chosen: trial.hyperparameters ?? trial.searched ?? {}}))
  const names = [...new Set(trials.flatMap((trial) => Object.keys(trial.chosen)))].slice(0, 8)
  const best = Math.max(...trials.map((trial) => trial.value ?? -Infinity))
  const short = (value) => value === undefined ? '–' : Number.isFinite(Number(value))
    ? String(Number(Number(value).toPrecision(3))) : String(value)
  place.replaceChildren(h('h2', {}, `Trials (${trials.length})`),
    gone && run.search ? missing(`${gone}: only the best trials are shown.`) : '',
    parallel(trials, found.objective?.name) ?? '',
    table('Trials', ['trial', '#value', '#took', ...names.map((name) => `#${readable(name)}`)],
      [...trials].sort((one, other) => (other.value ?? -1) - (one.value ?? -1)).map((trial) =>
        [trial.name, trial.value === null ? trial.status
          : trial.value === best ? h('strong', {class: 'good'}, number(trial.value, 4))
          : number(trial.value, 4), span(trial.seconds), ...names.map((name) => short(trial.chosen[name]))])))
}

/** Parallel coordinates of trials: one line per trial over its hyperparameters and its value,
  the best in another colour. */
function parallel(trials, objective) {
  const done = trials.filter((trial) => trial.value !== null)
  if (done.length < 2) return null
  const names = [...new Set(done.flatMap((trial) => Object.keys(trial.chosen)))]
    .filter((name) => new Set(done.map((trial) => trial.chosen[name])).size > 1).slice(0, 8)
  const axes = [...names.map((name) => [name, (trial) => trial.chosen[name]]),
    [objective ?? 'value', (trial) => trial.value]]
  const width = 1000, height = 270, step = (width - 140) / Math.max(1, axes.length - 1)
  const scales = axes.map(([, read]) => scaleOf(done.map(read), height))
  const best = done.reduce((one, other) => other.value > one.value ? other : one)
  const path = (trial) => axes.map(([, read], at) =>
    `${(70 + at * step).toFixed(1)},${scales[at].place(read(trial)).toFixed(1)}`).join(' ')
  return wide('Trials as parallel coordinates',
    h('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'Trials as parallel coordinates',
      class: 'wide'},
      done.filter((trial) => trial !== best).map((trial) =>
        h('polyline', {class: 'thin', points: path(trial)})),
      h('polyline', {class: 'thin best', points: path(best)}),
      axes.map(([name], at) => [h('line',
        {class: 'axis', x1: 70 + at * step, x2: 70 + at * step, y1: 34, y2: height - 34}),
        h('text', {x: 70 + at * step, y: 14, 'text-anchor': 'middle', class: 'name'}, readable(name)),
        h('text', {x: 70 + at * step, y: 29, 'text-anchor': 'middle'}, scales[at].high),
        h('text', {x: 70 + at * step, y: height - 18, 'text-anchor': 'middle'}, scales[at].low)])),
    h('p', {class: 'legend'}, h('span', {class: 'second'}, `the best, ${number(best.value, 4)}`),
      h('span', {class: 'third'}, 'the others')))
}

/** The axis of one hyperparameter: logarithmic where values differ thirtyfold,
  an order of words where they are words. */
function scaleOf(values, height) {
  const span = (share) => height - 36 - share * (height - 72)
  if (!values.every((value) => value !== '' && Number.isFinite(Number(value)))) {
    const order = [...new Set(values)]
    return {place: (value) => span((order.indexOf(value) + .5) / order.length), low: '',
      high: order.slice(0, 3).join(', ')}
  }
  const numbers = values.map(Number), least = Math.min(...numbers), most = Math.max(...numbers)
  const by = least > 0 && most / least > 30 ? Math.log : (value) => value
  const short = (value) => String(Number(value.toPrecision(3)))
  return {place: (value) => span((by(Number(value)) - by(least)) / ((by(most) - by(least)) || 1)),
    low: short(least), high: short(most)}
}

function showLog(run_id, task_id, place) {
  place.replaceChildren(h('h2', {}, `Log of ${readable(task_id)}`), part(async () => {
    const {lines} = await ask('runs/log', {run_id, task_id})
    return lines.length ? card(null, h('pre', {tabindex: '0'}, lines.join('\n')))
      : h('p', {class: 'soft'}, 'No line yet.')
  }))
  place.scrollIntoView()
}
