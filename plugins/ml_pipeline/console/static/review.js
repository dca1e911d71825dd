// Review: one photo at a time, one key each; two people may do it at once.

import {ask, h, heading, link, message, missing, number, percent, picker, picture, post, readable, to} from
  './elements.js'

const WHY = {uncertain: 'The model was not sure.', unknown: 'It looks like no class of the data set.',
  suspect: 'Its label is probably wrong.'}

export async function reviewPage([name]) {
  const {datasets} = await ask('data')
  if (!datasets.length) return [heading('Review', 'No data set yet.'),
    h('p', {}, 'Run the DAG train_and_deploy on a folder of photos.')]
  const chosen = name ?? datasets[0]
  const pick = picker('Data set', datasets.map((one) => [one, one]), chosen,
    (one) => { location.hash = to(['review', one]) })
  return [heading('Review',
    'Photos whose label is worth a look. Answers join the next version of the data set.', pick),
    ...await desk(chosen)]
}

/** The desk of one reviewer: the photos that wait, the answers given, the keys. */
async function desk(name) {
  const place = h('div', {class: 'desk'}), said = message()
  let queue = [], found = {}, at = 0
  const given = [], sending = new Set()
  const load = async () => {
    found = {...await ask('review', {name}), before: given.length}
    const asked = new Set(given.map(({photo}) => photo.sha256))
    queue = found.photos.filter((photo) => !asked.has(photo.sha256))
    at = 0
  }
  const draw = () => {
    const photo = queue[at]
    place.replaceChildren(...(photo ? question(name, photo, found, given.length, act)
      : done(name, found, given.length, act)))
  }
  const next = async () => {
    at += 1
    if (at >= queue.length) {
      await Promise.allSettled(sending)
      await load().catch((error) => said.replaceChildren(h('span', {class: 'bad'}, error.message)))
    }
    draw()
  }
  const send = (document) => {
    const sent = post('review', {name}, document)
    sending.add(sent)
    return sent.finally(() => sending.delete(sent))
  }
  const act = {
    answer: (action, label = null) => {
      const photo = queue[at], {sha256} = photo
      given.push({photo, action, label})
      said.replaceChildren(`${action === 'label' ? readable(label) : action === 'keep' ? 'kept'
        : 'left out'}. `, h('button', {class: 'plain', onclick: () => act.undo()}, 'Undo (u)'))
      // The next photo is shown while this answer is on its way; an answer that is refused comes back.
      send({sha256, action, label}).catch((error) => {
        given.splice(given.findIndex((one) => one.photo === photo), 1)
        said.replaceChildren(h('span', {class: 'bad'}, error.message))
      })
      return next()
    },
    skip: () => next(),
    undo: async () => {
      const last = given.at(-1)
      if (!last) return said.replaceChildren('There is nothing to take back.')
      await Promise.allSettled(sending)
      try {
        await send({sha256: last.photo.sha256})
        given.pop()
        queue.splice(at, 0, last.photo)
        said.replaceChildren('Taken back.')
        draw()
      } catch (error) { said.replaceChildren(h('span', {class: 'bad'}, error.message)) }
    },
  }
  document.onkeydown = (event) => { if (place.isConnected) onKey(event, queue[at], act, place) }
  await load()
  draw()
  return [found.missing ? missing(found.missing) : null, place, said]
}

function choices(photo) {
  const labels = [...new Set([photo.suggestion, photo.label].filter(Boolean))]
  return labels.map((label, at) => ({key: String(at + 1), label, keep: label === photo.label}))
}

function onKey(event, photo, act, place) {
  const typing = event.target.matches('input, select, textarea')
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (typing) { if (event.key === 'Escape') event.target.blur(); return }
  const choice = photo && choices(photo).find(({key}) => key === event.key)
  const actions = {u: () => act.undo(),
    ...(photo ? {s: () => act.skip(), x: () => act.answer('reject'),
      '/': () => place.querySelector('input')?.focus()} : {})}
  const chosen = choice ? () => choose(choice, act) : actions[event.key]
  if (!chosen || event.repeat) return
  event.preventDefault()
  chosen()
}

const choose = ({label, keep}, act) => keep ? act.answer('keep') : act.answer('label', label)

function question(name, photo, found, answered, act) {
  const key = (name) => h('kbd', {}, name)
  const input = h('input', {list: 'review-classes', 'aria-label': 'Another class', maxlength: 200,
    autocomplete: 'off', placeholder: 'another class'})
  const left = Math.max(1, found.waiting - (answered - found.before)), total = left + answered
  return [h('div', {class: 'shown'}, picture(name, photo, 'the photo to review'),
    h('code', {class: 'soft'}, photo.origin)),
    h('div', {}, h('p', {class: 'soft'}, `${number(answered)} answered, ${number(left)} to go`),
      h('progress', {max: total || 1, value: answered, 'aria-label': 'answered'}),
      h('h2', {}, photo.label ? `Is this ${readable(photo.label)}?` : 'What is this?'),
      h('p', {}, WHY[photo.why] ?? readable(photo.why), photo.probability === null ? ''
        : ` It said ${readable(photo.suggestion)}, with ${percent(photo.probability, 0)}.`),
      h('div', {class: 'choices'},
        choices(photo).map((choice) =>
          h('button', {onclick: () => choose(choice, act), class: choice.key === '1' ? 'main' : null},
            key(choice.key), readable(choice.label), choice.keep ? ' (as it is)' : '')),
        h('form', {onsubmit: (event) => { event.preventDefault()
          if (input.value.trim()) act.answer('label', input.value.trim()) }}, key('/'), input,
          h('datalist', {id: 'review-classes'},
            found.classes.slice(0, 2000).map((label) => h('option', {value: label}))),
          h('button', {}, 'Give it')),
        h('button', {onclick: () => act.answer('reject')}, key('x'), 'Leave it out'),
        h('button', {onclick: () => act.skip()}, key('s'), 'Skip'),
        h('button', {onclick: () => act.undo(), disabled: answered === 0}, key('u'), 'Undo')))]
}

function done(name, found, answered, act) {
  return [h('div', {class: 'card'}, h('h2', {}, answered ? 'All done' : 'Nothing to review'),
    h('p', {}, answered
      ? `You answered ${number(answered)} photos; the next version of the data set has them.`
      : 'No photo waits for an answer. The data check and the DAG watch fill the queue.'),
    answered ? h('button', {onclick: () => act.undo()}, h('kbd', {}, 'u'), 'Undo the last') : null, ' ',
    link(['data', name], 'Back to the data', 'button'))]
}
