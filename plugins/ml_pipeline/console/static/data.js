// Data: versions of a data set, what was found in them, their photos, corrections of labels.

import {ask, attempt, card, h, heading, link, message, missing, number, outside, pager, part, percent, picker,
  post, readable, table, tiles, to} from './elements.js'
import {FINDINGS, photoCard, photoDetail} from './shared.js'

export async function dataPage([name, version, word, model, label, prediction]) {
  const {datasets} = await ask('data')
  if (!datasets.length) return [heading('Data', 'No data set yet.'),
    card(null, h('p', {}, 'Run the DAG train_and_deploy on a folder of photos.'))]
  const chosen = name ?? datasets[0]
  const pick = picker('Data set', datasets.map((one) => [one, one]), chosen,
    (one) => { location.hash = to(['data', one]) })
  if (!version) {
    return [heading('Data', 'Every version of the photos, what changed, and what is odd about them.', pick),
      part(() => versionTable(chosen))]
  }
  const filter = {mistakes: word === 'mistakes', model: ['mistakes', 'cell'].includes(word) ? model : null,
    label: word === 'cell' ? label : word === 'class' ? model : null, prediction: word === 'cell' ? prediction
      : null,
    finding: word === 'found' ? model : ''}
  return [link(['data', chosen], '← All versions', 'back'), part(() => oneVersion(chosen, version, filter))]
}

async function versionTable(name) {
  const {versions} = await ask('data/versions', {name})
  return table('Versions', ['version', '#photos', '#train', '#valid', '#test', '#classes', '#left out',
    'what changed'],
    versions.map((row) => row.missing ? [h('code', {}, row.version), h('span', {class: 'bad'}, row.missing),
      '', '', '', '', '', '']
        : [link(['data', name, row.version], row.version), number(row.photos), number(row.counts.train),
          number(row.counts.valid),
          number(row.counts.test), number(row.classes), number(row.rejected), changes(row.change)]))
}

function changes(change) {
  if (!change) return 'the first'
  const words = [`${change.photos >= 0 ? '+' : ''}${number(change.photos)} photos`]
  if (change.added.length) words.push(`new: ${change.added.slice(0, 20).map(readable).join(', ')}`)
  if (change.removed.length) words.push(`gone: ${change.removed.slice(0, 20).map(readable).join(', ')}`)
  return words.join('; ')
}

async function oneVersion(name, version, filter) {
  const found = await ask('data/version', {name, version})
  const check = found.check
  return [h('div', {class: 'heading'},
    h('div', {}, h('h1', {}, readable(name)), h('p', {class: 'soft'}, 'version ', h('code', {}, version))),
    h('div', {class: 'row'}, outside(found.report_url, 'Data report'),
      link(['review', name], 'Review suspects', 'button'))),
    tiles(['Photos', number(found.photos),
      Object.entries(found.counts).map(([split, count]) => `${number(count)} ${split}`).join(', ')],
      ['Classes', number(found.classes)], ['Left out', number(found.rejected), 'files that are no photos'],
      check ? ['Suspected labels', number(check.suspects.count), percent(check.suspects.share)] : null,
      check ? ['Near-duplicates', number(check.near_duplicates.pairs),
        `${check.near_duplicates.across_classes} in two classes, `
        + `${check.near_duplicates.across_splits} in two splits`] : null),
    found.check_missing ? missing(found.check_missing) : null,
    check?.cannot_be_told_apart.length
      ? h('p', {}, `Hardly told apart: ${check.cannot_be_told_apart.slice(0, 8)
        .map((pair) => `${pair.classes.map(readable).join(' and ')} (${percent(pair.accuracy,
          0)})`).join('; ')}.`) : null,
    h('h2', {}, 'Photos'), part(() => photos(name, version, filter, found)),
    h('details', {}, h('summary', {}, `Classes (${number(found.classes)})`),
      classTable(name, version, found)),
    found.rejects.length ? h('details', {}, h('summary', {}, `Files left out (${number(found.rejected)})`),
      table('Files left out', ['file', 'reason'],
        found.rejects.map((row) => [h('code', {}, row.path), row.reason]))) : null]
}

function classTable(name, version, found) {
  const said = message(), from = h('input', {list: 'all-classes', required: true}),
    into = h('input', {list: 'all-classes', required: true, maxlength: 200})
  const rename = (event) => {
    event.preventDefault()
    attempt(said, async () => {
      const {corrected} = await post('data/rename', {name, version}, {label: from.value, to: into.value})
      return `${number(corrected)} photos of ${readable(from.value)} become ${readable(into.value)} `
      + 'in the next version.'
    })
  }
  return h('div', {}, h('form', {onsubmit: rename}, h('label', {}, 'Class', from),
    h('label', {}, 'New name, or the class it joins', into),
    h('datalist', {id: 'all-classes'},
      found.class_counts.slice(0, 2000).map((row) => h('option', {value: row.name}))),
    h('button', {}, 'Rename or merge')), said,
    table('Classes', ['class', '#train', '#valid', '#test'], found.class_counts.slice(0, 500).map((row) =>
      [link(['data', name, version, 'class', row.name], readable(row.name)), number(row.train),
        number(row.valid), number(row.test)])))
}

async function photos(name, version, filter, found) {
  const place = h('div'), chosen = {split: '', ...filter}
  const labels = found.class_counts.map((row) => row.name),
    few = labels.slice(0, 2000).map((label) => [label, readable(label)])
  // Without a model there are no answers, and SageMaker may be away: the photos are shown all the same.
  const versions = await ask('models').then(({groups}) => groups.includes(name)
    ? ask('models/versions', {group: name}) : {versions: []})
    .then((known) => known.versions, () => [])
  const select = (title, key, options, all = 'all') => picker(title, [['', all], ...options],
    chosen[key] ?? '', (value) => { chosen[key] = value; draw(0) })
  const wrong = h('input', {type: 'checkbox', checked: chosen.mistakes,
    onchange: () => { chosen.mistakes = wrong.checked; draw(0) }})
  const bar = h('div', {class: 'row filters'}, select('Class', 'label', few),
    select('Split', 'split', ['train', 'valid', 'test'].map((split) => [split, split])),
    select('Found', 'finding', Object.entries(FINDINGS)), versions.length ? [
      select('Answers of', 'model', versions.map((row) => [String(row.version), `model v${row.version}`]),
        'no model'),
      select('Taken for', 'prediction', few), h('label', {class: 'check'}, wrong, 'mistakes only')] : null)
  const draw = async (offset) => {
    // A photo is a mistake, or is taken for something, by a model: the newest unless one is chosen.
    if ((chosen.mistakes || chosen.prediction) && !chosen.model && versions.length) {
      chosen.model = String(versions[0].version)
      bar.querySelectorAll('select')[3].value = chosen.model
    }
    try {
      const page = await ask('data/photos', {name, version, ...chosen, offset})
      place.replaceChildren(page.photos.length ? h('ul', {class: 'photos'}, page.photos.map((photo) =>
        photoCard(name, photo, page.thumbnails,
          () => photoDetail(name, photo, labels, page.thumbnails, () => draw(offset)))))
          : h('p', {class: 'soft'}, chosen.mistakes ? 'No mistake: every photo is answered rightly.'
            : 'No photo passes these filters.'), pager(page, draw))
    } catch (error) { place.replaceChildren(missing(error.message)) }
  }
  await draw(0)
  return [bar, versions.length ? null
    : missing('No model of this data set yet: mistakes and answers come with the first.'), place]
}
