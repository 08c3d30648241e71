"""What is measured on the page as it is shown: contrast of all text, width, names of controls. Expressions for Page.evaluate.

Each gives a list of findings as text, empty when all is well.
"""

LEAST_CONTRAST = 4.5

# WCAG 2: the ratio of relative luminances of text and what lies behind it, with transparency taken into account.
CONTRAST = """(() => {
  const parse = text => {
    const n = (text.match(/[\\d.]+/g) || []).map(Number);
    if (!text.startsWith('rgb')) throw new Error('colour: ' + text);
    return {rgb: n.slice(0, 3), a: n.length > 3 ? n[3] : 1};
  };
  const over = (top, a, below) => top.map((v, i) => v * a + below[i] * (1 - a));
  const luminance = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const ground = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) {
      const {rgb, a} = parse(getComputedStyle(n).backgroundColor);
      if (a > 0) layers.push([rgb, a]);
      if (a === 1) break;
    }
    return layers.reverse().reduce((below, [rgb, a]) => over(rgb, a, below), [255, 255, 255]);
  };
  const findings = [];
  let texts = 0;
  const check = (node, style, text) => {
    let opacity = 1;
    for (let n = node; n; n = n.parentElement) opacity *= Number(getComputedStyle(n).opacity);
    const colour = parse(style.color), below = ground(node);
    if (opacity < 0.01) return;
    texts++;
    const found = ratio(over(colour.rgb, colour.a * opacity, below), below);
    if (found < %s) findings.push(`${found.toFixed(2)}: ${text.trim().slice(0, 40)}`);
  };
  const scope = document.querySelector('dialog[open]') || document.body;
  for (const node of scope.querySelectorAll('*')) {
    if (!node.checkVisibility({visibilityProperty: true}) || node.closest('.sr, .skip, script, style, svg')) continue;
    const own = [...node.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('');
    if (own.trim() && !['TEXTAREA', 'OPTION'].includes(node.tagName)) check(node, getComputedStyle(node), own);
    if (node.matches('input, textarea')) {
      check(node, getComputedStyle(node), 'value');
      check(node, getComputedStyle(node, '::placeholder'), 'placeholder ' + node.placeholder);
    }
  }
  if (texts < 5) findings.push('expected more than ' + texts + ' texts to look at');
  return findings;
})()""" % LEAST_CONTRAST

# Nothing reaches past the right edge, except inside of what scrolls by itself.
TOO_WIDE = """(() => {
  const width = document.documentElement.clientWidth, findings = [];
  if (document.documentElement.scrollWidth > width) findings.push('page: ' + document.documentElement.scrollWidth);
  const scroll = document.querySelector('#scroll');
  if (scroll.scrollWidth > scroll.clientWidth) findings.push('messages: ' + scroll.scrollWidth);
  for (const node of document.querySelectorAll('body *')) {
    if (!node.checkVisibility({visibilityProperty: true}) || node.closest('.sr, pre, .table, .skip, svg')) continue;
    const box = node.getBoundingClientRect();
    if (box.width && box.right > width + 0.5) findings.push(`${node.tagName}.${node.className}: ${box.right}`);
  }
  const dialog = document.querySelector('dialog[open]');
  if (dialog && dialog.scrollWidth > dialog.clientWidth) findings.push('dialog: ' + dialog.scrollWidth);
  return findings;
})()"""

# Every control has a name, and every landmark and dialog too; ids are unique.
NAMES = """(() => {
  const findings = [];
  for (const node of document.querySelectorAll('button, input, select, textarea, nav, dialog, [role=region], [role=log], summary')) {
    const label = node.getAttribute('aria-label') || document.getElementById(node.getAttribute('aria-labelledby'))?.textContent
      || (node.matches('button, summary') ? node.textContent : node.labels?.[0]?.textContent) || '';
    if (!label.trim() && !(node.tagName === 'SUMMARY' && node.parentNode.hidden)) findings.push(`no name: ${node.outerHTML.slice(0, 100)}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map(node => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) findings.push(`two elements with id ${id}`);
  for (const name of ['nav', 'main', 'header', 'h1']) {
    if (document.querySelectorAll(name).length < 1) findings.push(`expected one ${name}`);
  }
  if (!document.documentElement.lang) findings.push('no language');
  return findings;
})()"""

# Which element has the focus, and whether one sees that: an outline, or for the message box its frame.
FOCUS = """(() => {
  const node = document.activeElement, style = getComputedStyle(node);
  const frame = node.id === 'input' ? getComputedStyle(node.form).boxShadow !== 'none' : false;
  const box = node.getBoundingClientRect();
  return {
    name: node === document.body ? 'BODY' : node.id || node.getAttribute('aria-label') || node.textContent.trim().slice(0, 30) || node.tagName,
    seen: frame || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2),
    shown: box.width > 0 && box.bottom > 0 && box.top < innerHeight,
  };
})()"""
