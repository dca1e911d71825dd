// The console: which page is shown.

import {h, missing, Problem} from './elements.js'
import {dataPage} from './data.js'
import {endpointsPage, tryPage} from './endpoints.js'
import {modelsPage} from './models.js'
import {reviewPage} from './review.js'
import {runsPage} from './runs.js'

const pages = {models: ['Models', modelsPage], runs: ['Runs', runsPage], data: ['Data', dataPage],
  endpoints: ['Endpoints', endpointsPage], review: ['Review', reviewPage], try: ['Try', tryPage]}
let shown = 0

async function show() {
  const parts = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decodeURIComponent)
  const [name, ...rest] = pages[parts[0]] ? parts : ['models']
  const [title, draw] = pages[name], mine = shown += 1
  document.title = `${title} · ML pipeline`
  document.getElementById('nav').replaceChildren(...Object.entries(pages).map(([key, [words]]) =>
    h('a', {href: `#/${key}`, 'aria-current': key === name ? 'page' : null}, words)))
  let content
  try {
    content = await draw(rest)
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error)
    content = [h('h1', {}, title), missing(error.message)]
  }
  if (mine === shown) document.getElementById('page').replaceChildren(...content.flat(3).filter(Boolean))
}

document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault() // the part behind # names a page here
  document.getElementById('page').focus()
})
addEventListener('hashchange',
  () => { show().then(() => document.getElementById('page').focus({preventScroll: true})) })
show()
