/* page.js - puts the stalls together: which one is shown, language, colours, key. */
import { $, askJson, keep, kept, notice, setKey, setLanguage } from './base.js';
import { languages } from './words.js';
import { loadModels, wireTry } from './try.js';
import { hideRuns, showRuns, wireRuns } from './runs.js';
import { loadChoices, wireStart } from './start.js';

const stalls = { try: () => loadModels(wanted), runs: (rest) => showRuns(rest), start: () => loadChoices() };
let wanted; /* the model that the next look at the first stall shows */

async function show() {
  const [name, ...rest] = location.hash.slice(1).split('/');
  const stall = stalls[name] ? name : 'try';
  for (const id of Object.keys(stalls)) $(id).hidden = id !== stall;
  for (const a of document.querySelectorAll('[data-tab]')) {
    if (a.dataset.tab === stall) a.setAttribute('aria-current', 'page');
    else a.removeAttribute('aria-current');
  }
  if (stall !== 'runs') hideRuns();
  try {
    notice('');
    await stalls[stall](decodeURIComponent(rest.join('/')));
    wanted = undefined;
  } catch (e) {
    notice(e.message);
  }
  document.documentElement.dataset.ready = stall;
}

function colours(name) {
  document.documentElement.dataset.theme = name;
  document.dispatchEvent(new Event('theme'));
}

const dark = matchMedia('(prefers-color-scheme: dark)');
colours(kept('theme') ?? (dark.matches ? 'dark' : 'light'));
dark.addEventListener('change', () => kept('theme') ?? colours(dark.matches ? 'dark' : 'light'));
$('theme').addEventListener('click', () => {
  const name = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  keep('theme', name);
  colours(name);
});

$('key-form').addEventListener('submit', (e) => {
  e.preventDefault();
  setKey($('key').value);
  $('key-form').hidden = true;
  show();
});

wireTry();
wireRuns((id) => {
  wanted = id;
  location.hash = '#try';
});
wireStart((job) => { location.hash = '#runs/' + encodeURIComponent(job); });

const spoken = navigator.languages.map((l) => l.slice(0, 2)).find((l) => languages.includes(l));
$('language').value = kept('language') ?? spoken ?? 'en';
$('language').addEventListener('change', (e) => {
  keep('language', e.target.value);
  setLanguage(e.target.value);
});
setLanguage($('language').value);
window.addEventListener('hashchange', show);
show();
askJson('/mbuyu/info').then((i) => { $('version').textContent = 'mbuyu ' + i.version; }, () => {});
