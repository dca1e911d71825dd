// What several pages show: photos with their detail, and learning curves.

import {ask, attempt, h, lines, message, missing, number, percent, picture, post, readable} from
  './elements.js'

export const FINDINGS = {suspect: 'suspected label', near_duplicate: 'near-duplicate', blurred: 'blurred',
  dark: 'dark',
  bright: 'washed out', low_information: 'little to see', odd_aspect: 'odd shape', odd_size: 'odd size',
  unlike: 'unlike its class', unreadable: 'unreadable'}

/** A photo of a page; `open` shows it larger, with what is known about it. */
export function photoCard(name, photo, pictured = true, open = null) {
  const alt = `labelled ${readable(photo.label)}`
  const image = photo.sha256 ? picture(name, photo, alt, pictured)
    : h('div', {class: 'none'}, 'no thumbnail')
  const shown = open ? h('button',
    {class: 'picture', 'aria-label': `open the photo ${photo.path || photo.key}`, onclick: open}, image)
    : image
  return h('li', {}, shown, h('div', {}, h('strong', {}, readable(photo.label)),
    h('span', {class: 'soft'}, ` ${photo.split}`),
    photo.prediction && photo.prediction !== photo.label
      ? h('div', {class: 'bad'}, `taken for ${readable(photo.prediction)}`) : null,
    (photo.remarks ?? []).map(([text, right]) => h('div', {class: right ? 'good' : 'bad'}, text)),
    photo.findings.map((one) => h('div', {class: 'warn'}, finding(one))),
    photo.correction ? h('div', {class: 'good'}, correction(photo.correction)) : null,
    h('code', {class: 'soft'}, photo.path || photo.key)))
}

const finding = (one) => `${FINDINGS[one.kind] ?? readable(one.kind)}${one.suggestion
  ? `: ${readable(one.suggestion)}?` : ''}`
const correction = ({action, label, who}) => action === 'label' ? `${who} says ${readable(label)}`
  : action === 'reject' ? `${who} leaves it out` : `${who} says it is right`

/** Why a photo is wrong: what the model said and how surely, what the data check found,
  and the means to correct it. */
export function photoDetail(name, photo, labels, pictured, changed) {
  const said = message(), id = 'classes-of-photo'
  const input = h('input', {list: id, value: photo.label, 'aria-label': 'Right class', maxlength: 200,
    autocomplete: 'off'})
  const correct = (action, label) => attempt(said, async () => {
    await post('data/correct', {name}, {photos: [photo.sha256], action, label})
    changed()
    return 'Noted: the next version of the data set applies it.'
  })
  const wrong = photo.prediction && photo.prediction !== photo.label
  const dialog = h('dialog',
    {'aria-label': 'Photo', onclose: () => dialog.remove(),
      onclick: (event) => { if (event.target === dialog) dialog.close() }},
    h('div', {class: 'detail'}, picture(name, photo, `labelled ${readable(photo.label)}`, pictured),
      h('div', {},
        h('h2', {}, wrong ? `${readable(photo.label)}, taken for ${readable(photo.prediction)}`
          : readable(photo.label)),
        wrong ? h('p', {}, 'The model answered ', h('strong', {}, readable(photo.prediction)),
          photo.probability ? ` with ${percent(photo.probability, 0)}.` : '.') : null,

        photo.findings.map((one) => h('p', {class: 'warn'}, explanation(one))),
        photo.findings.length || !wrong ? null
          : h('p', {class: 'soft'}, 'The data check found nothing odd about the photo.'),
        h('p', {}, h('code', {}, photo.path || photo.key), h('span', {class: 'soft'}, ` in ${photo.split}`)),
        photo.correction ? h('p', {class: 'good'}, correction(photo.correction)) : null,
        h('form', {onsubmit: (event) => { event.preventDefault(); correct('label', input.value) }},
          h('label', {}, 'Right class', input),
          h('datalist', {id}, labels.slice(0, 2000).map((label) => h('option', {value: label}))),
          h('button', {class: 'main'}, 'Correct the label'),
          h('button', {type: 'button', onclick: () => correct('keep', null)}, 'It is right'),
          h('button', {type: 'button', onclick: () => correct('reject', null)}, 'Leave it out')), said,
        h('button', {class: 'close', onclick: () => dialog.close()}, 'Close'))))
  document.body.append(dialog)
  dialog.showModal()
}

function explanation(one) {
  if (one.kind === 'suspect') {
    const odds = one.odds ? ` (odds ${number(Math.exp(Math.min(one.odds, 12)), 0)} to 1)` : ''
    return `Its label is probably wrong: its neighbours are ${readable(one.suggestion)}${odds}.`
  }
  if (one.kind === 'near_duplicate') return 'Nearly the same picture is in the data set twice.'
  return `The data check says: ${finding(one)}.`
}

/** Accuracy and loss of each epoch of one or two runs: [[name, run id], ...]. */
export async function curves(runs) {
  const found = await Promise.all(runs.map(([, run_id]) => run_id
    ? ask('runs/curves', {run_id}).then(({epochs}) => epochs, (error) => error.message) : 'no run is known'))
  const chart = (title, metrics, format) => h('section', {class: 'card'}, h('h3', {}, title),
    lines(title, metrics.flatMap(([metric, words], row) =>
      found.map((epochs, at) => typeof epochs === 'string' ? {points: []} : {
        name: [runs[at][0], words].filter(Boolean).join(' '),
        style: ['first', 'second', 'third', 'fourth'][runs.length > 1 ? at + 2 * row : row],
        points: epochs.filter((epoch) => epoch[metric] !== undefined).map((epoch) =>
          [epoch.epoch, epoch[metric]])})
        .filter((one) => one.points.length)), format, (epoch) => `epoch ${number(epoch, 0)}`))
  return [...found.map((epochs, at) => typeof epochs === 'string'
    ? missing([runs[at][0], epochs].filter(Boolean).join(': ')) : null).filter(Boolean),
    found.some((epochs) => typeof epochs !== 'string') ? h('div', {class: 'pair'},
      chart('Accuracy', [['valid_accuracy', 'validation']], (value) => percent(value, 0)),
      chart('Loss', [['valid_loss', 'validation'], ['train_loss', 'training']])) : null].filter(Boolean)
}
