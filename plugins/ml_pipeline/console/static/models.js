// Models: the versions of a data set's classifier, two of them compared, and what one mixes up.

import {address, ask, attempt, badge, card, day, h, heading, interval, link, megabytes, message, missing,
  number, part, percent, picker, readable, start, table, tiles, to, usd, when, whisker} from './elements.js'
import {curves, photoCard} from './shared.js'

const FILES = ['model.onnx', 'model.int8.onnx', 'labels.txt', 'transform.json', 'model.safetensors',
  'model.tar.gz']

export async function modelsPage([group, word, left, right]) {
  const {groups} = await ask('models')
  if (!groups.length) {
    return [heading('Models', 'No model yet.'), card('Train the first one',
      h('p', {}, 'Run the DAG train_and_deploy on a folder of photos, or make run on a laptop.'))]
  }
  const chosen = group ?? groups[0]
  const pick = picker('Data set', groups.map((name) => [name, name]), chosen,
    (name) => { location.hash = to(['models', name]) })
  const back = link(['models', chosen], '← All versions', 'back')
  if (word === 'compare') return [back, part(() => comparison(chosen, left, right))]
  if (word === 'classes') return [back, part(() => classesOf(chosen, left))]
  return [heading('Models', 'Every version of a classifier, with what it costs and where it serves.', pick),
    part(() => versionList(chosen))]
}

async function versionList(group) {
  const {versions} = await ask('models/versions', {group})
  const said = message(), picked = new Set()
  const serving = versions.find((version) => version.endpoints.length)
  const bounds = versions.filter((version) => version.figures).flatMap(({figures}) =>
    [figures.interval?.low ?? figures.accuracy, figures.interval?.high ?? figures.accuracy])
  const scale = [Math.min(1, ...bounds), Math.max(0, ...bounds)]
  const compare = h('button', {disabled: true, onclick: () => {
    const [one, other] = [...picked].sort((before, after) => before - after)
    location.hash = to(['models', group, 'compare', one, other])
  }}, 'Compare two')
  const rows = versions.map((version) => row(group, version, serving, scale, said, (checked) => {
    if (checked) picked.add(version.version); else picked.delete(version.version)
    compare.disabled = picked.size !== 2
  }))
  return [serving ? hero(group, serving, versions, said)
    : missing('No version is in service: deploy one below.'), said,
    h('div', {class: 'heading'}, h('h2', {}, 'Versions'), compare),
    table('Versions', ['version', 'accuracy', '#macro F1', '#one photo', '#size', '#to train',
      '#per million photos',
      'data set', 'approval', 'serves', 'made', ''], rows)]
}

function hero(group, version, versions, said) {
  const figures = version.figures
  const older = versions.find((one) => one.version < version.version && one.deploy)
  return h('section', {class: 'card hero'},
    h('div', {}, badge('in service', 'good'), h('h2', {}, `v${version.version} answers on `,
      version.endpoints.map((name, at) => [at ? ', ' : '', link(['endpoints', name], name)])),
      h('p', {class: 'soft'}, `Made ${when(version.created)}, on ${figures?.runtime
        ?? 'an unknown runtime'}.`),
      h('div', {class: 'row'},
        link(['data', version.metadata.dataset_name ?? group, version.metadata.dataset_version ?? '',
          'mistakes', version.version], 'See its mistakes', 'button main'),
        link(['models', group, 'classes', version.version], 'Classes and mix-ups', 'button'),
        older ? deployButton(older, `Roll back to v${older.version}`, said) : null)),
    figures ? tiles(['Accuracy', percent(figures.accuracy),
      `${interval(figures)} on ${number(figures.photos)} photos`],
      ['One photo', `${number(figures.latency_ms, 1)} ms`,
        `${number(figures.photos_per_second, 0)} a second`],
      ['A million photos', usd(version.usd_per_million), version.machine ? `on a busy ${version.machine}`
        : null],
      ['To train', usd(version.usd),
        version.metadata.run_id ? link(['runs', version.metadata.run_id], 'its run') : null])
      : missing(version.missing))
}

function row(group, version, serving, scale, said, pick) {
  const {figures, metadata} = version, range = figures?.interval
  return [[h('label', {class: 'check'},
    h('input', {type: 'checkbox', 'aria-label': `choose version ${version.version}`,
      onchange: (event) => pick(event.target.checked)}),
    link(['models', group, 'classes', version.version], `v${version.version}`))],
    figures ? h('div', {class: 'measured'}, whisker(figures.accuracy, range?.low, range?.high, scale),
      h('span', {}, h('strong', {}, percent(figures.accuracy)),
        h('small', {class: 'soft'}, interval(figures)))) : h('span', {class: 'bad small'}, version.missing),
    number(figures?.macro_f1, 3),
    figures ? [`${number(figures.latency_ms, 1)} ms`, h('small', {class: 'soft'}, figures.runtime)] : '–',
    megabytes(version.bytes), usd(version.usd), usd(version.usd_per_million),
    metadata.dataset_version ? link(['data', metadata.dataset_name ?? group, metadata.dataset_version],
      metadata.dataset_version.slice(0, 8)) : '–',
    approval(version), version.endpoints.length
      ? version.endpoints.map((name) => link(['endpoints', name], name)) : '–',
    [day(version.created), metadata.run_id ? h('small', {}, link(['runs', metadata.run_id], 'run')) : null],
    h('div', {class: 'row tight'}, version.deploy
      ? deployButton(version, serving && version.version < serving.version ? 'Roll back' : 'Deploy', said)
      : null,
      h('details', {class: 'menu'}, h('summary', {}, 'Download'), h('div', {}, FILES.map((file) =>
        h('a', {href: address('models/download', {group, version: version.version, file}), download: true},
          file)))))]
}

function approval(version) {
  const by = version.approver ? h('small', {class: 'soft'}, `by ${version.approver}`) : null
  if (version.status === 'Approved') return [badge('approved', 'good'), by]
  return version.status === 'Rejected' ? [badge('rejected', 'bad'), by] : badge('waits for approval', 'warn')
}

/** A button that asks once more and then starts the DAG deploy as the user. */
function deployButton(version, words, said) {
  const button = h('button', {onclick: async () => {
    if (button.dataset.sure !== 'yes') {
      button.dataset.sure = 'yes'
      button.className = 'main'
      button.textContent = `${words.split(' to v')[0]} to v${version.version}?`
      return
    }
    button.disabled = true
    const done = await attempt(said,
      async () => `Started ${(await start('deploy', version.deploy)).dag_run_id}.`)
    button.disabled = done
  }}, words)
  return button
}

async function comparison(group, left, right) {
  const found = await ask('models/compare', {group, left, right})
  const [one, other] = [found.left, found.right]
  const better = (change, digits = 1) => change === null || Number.isNaN(change) ? '–'
    : h('span', {class: change > 0 ? 'good' : change < 0 ? 'bad' : 'soft'},
      `${change > 0 ? '+' : ''}${(100 * change).toFixed(digits)} points`)
  const figure = (name, read, format, change = null) => [name, format(read(one)), format(read(other)),
    change ? better(read(other) - read(one)) : '']
  const names = [...new Set([...Object.keys(found.recipes.left), ...Object.keys(found.recipes.right)])].sort()
  const dataset = other.metadata.dataset_name ?? group
  return [h('h1', {}, `v${left} against v${right}`),
    h('p', {class: 'soft'}, `${readable(group)}, ${when(one.created)} and ${when(other.created)}`),
    table('Figures', ['', `#v${left}`, `#v${right}`, '#change'], [
      figure('accuracy', (version) => version.figures.accuracy, percent, true),
      figure('interval', (version) => interval(version.figures), String),
      figure('top 5', (version) => version.figures.top5_accuracy, percent, true),
      figure('macro F1', (version) => version.figures.macro_f1, (value) => number(value, 3)),
      figure('log loss', (version) => version.figures.log_loss, (value) => number(value, 3)),
      figure('one photo', (version) => version.figures.latency_ms, (value) => `${number(value, 1)} ms`),
      figure('size', (version) => version.bytes, megabytes),
      figure('a million photos', (version) => version.usd_per_million, usd),
      figure('runtime', (version) => version.figures.runtime, String),
      figure('data set', (version) => version.metadata.dataset_version,
        (value) => String(value ?? '–').slice(0, 8))]),
    found.added.length ? h('p', {}, `New classes: ${found.added.map(readable).join(', ')}.`) : null,
    found.removed.length ? h('p', {}, `Classes gone: ${found.removed.map(readable).join(', ')}.`) : null,
    h('h2', {}, 'Classes that changed'),
    found.changed.length ? table('Classes that changed',
      ['class', `#recall v${left}`, `#recall v${right}`, '#change', '#photos'],
      found.changed.slice(0, 60).map((row) => [readable(row.name), percent(row.before, 0),
        percent(row.after, 0),
        better(row.after - row.before, 0), number(row.photos)])) : h('p', {class: 'soft'}, 'None.'),
    h('h2', {}, 'Photos that only one gets right'),
    found.flips_missing ? missing(found.flips_missing)
      : [h('p', {class: 'soft'}, found.flips ? `${number(found.flips)} photos.` : 'None.'),
        h('ul', {class: 'photos'},
          found.flipped.slice(0, 60).map((row) =>
            photoCard(dataset, {...row, label: row.class, split: 'test', prediction: null, findings: [],
              remarks: [[`v${left}: ${readable(row.before)}`, row.before === row.class],
                [`v${right}: ${readable(row.after)}`, row.after === row.class]]})))],
    h('h2', {}, 'Hyperparameters'),
    names.length ? table('Hyperparameters', ['hyperparameter', `#v${left}`, `#v${right}`],
      names.map((name) => {
        const [before, after] = [found.recipes.left[name],
          found.recipes.right[name]].map((value) => value === undefined ? '–' : Number.isFinite(Number(value))
              ? String(Number(Number(value).toPrecision(4))) : String(value))
        return [readable(name), before, before === after ? h('span', {class: 'soft'}, after)
          : h('strong', {}, after)]
    })) : missing('The runs of these versions are gone from Airflow, and their hyperparameters with them.'),
    h('h2', {}, 'Learning curves'),
    part(() => curves([[`v${left}`, one.metadata.run_id], [`v${right}`, other.metadata.run_id]]))]
}

async function classesOf(group, version) {
  const found = await ask('models/classes', {group, version})
  const dataset = found.dataset ?? {name: group, version: found.version.metadata.dataset_version}
  const figures = found.figures,
    cell = (label, answer) => ['data', dataset.name, dataset.version, 'cell', version, label, answer]
  return [h('h1', {}, `${readable(group)} v${version}`),
    tiles(['Accuracy', percent(figures.accuracy),
      figures.interval ? `${interval(figures)}, ${number(figures.photos)} test photos` : null],
      ['Macro F1', number(figures.macro_f1, 3)],
      ['One photo', `${number(figures.latency_ms, 1)} ms`, figures.runtime],
      ['Calibration error', percent(figures.calibration_error)]),
    h('p', {}, link(['data', dataset.name, dataset.version, 'mistakes', version], 'See its mistakes',
      'button main')),
    found.names.length ? [h('h2', {}, 'Confusion'),
      h('p', {class: 'soft'},
        'A row is the true class, a column the answer. Choose a cell to see its photos.'),
      confusion(found.names, found.confusion, cell)] : null,
    h('h2', {}, 'Commonest mix-ups'),
    found.mixed_up.length ? table('Mix-ups', ['this', 'was taken for', '#photos', ''],
      found.mixed_up.map((row) =>
        [readable(row.label), row.answer ? readable(row.answer) : 'a class it was never taught',
          number(row.photos),
          row.answer ? link(cell(row.label, row.answer), 'See photos') : '']))
      : h('p', {class: 'soft'}, 'None.'),
    h('h2', {}, 'Classes, the worst first'), table('Classes', ['class', '#recall', '#precision', '#photos'],
      found.classes.map((row) => [readable(row.name), percent(row.recall, 0), percent(row.precision, 0),
        number(row.photos)]))]
}

function confusion(names, cells, cell) {
  const counts = new Map(cells.map(([row, column, count]) => [`${row} ${column}`, count]))
  const total = names.map((_, row) =>
    names.reduce((sum, __, column) => sum + (counts.get(`${row} ${column}`) ?? 0), 0))
  const shade = (row, column, count) =>
    `heat${Math.min(4, Math.ceil(4 * count / (total[row] || 1)))} ${row === column ? 'right' : 'wrong'}`
  return h('div', {class: 'card scroll confusion', tabindex: '0', role: 'region', 'aria-label': 'Confusion'},
    h('table', {},
      h('thead', {}, h('tr', {}, h('td', {}), names.map((name) => h('th', {scope: 'col'}, readable(name))))),
      h('tbody', {}, names.map((name, row) => h('tr', {}, h('th', {scope: 'row'}, readable(name)),
        names.map((other, column) => {
          const count = counts.get(`${row} ${column}`) ?? 0
          return h('td', {class: count ? shade(row, column, count) : null},
            count === 0 ? '' : h('a', {href: to(cell(name, other)),
              'aria-label': `${count} photos of ${readable(name)} taken for ${readable(other)}`},
              number(count)))
  }))))))
}
