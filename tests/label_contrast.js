// How many visible elements have text, and those with too little contrast (WCAG 2, level AA).
const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
};
const over = ([r, g, b, a], base) => [r, g, b].map((v, i) => v * a + base[i] * (1 - a));
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  if (!element) return [255, 255, 255];
  const own = parse(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
};
const faded = (element) =>
  element ? getComputedStyle(element).opacity * faded(element.parentElement) : 1;
const hasText = (element) =>
  [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());

const bad = {};
let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  if (!hasText(element) || !element.getClientRects().length) continue;
  if (element.disabled || element.closest("script, option")) continue;
  const style = getComputedStyle(element);
  const back = ground(element);
  const ink = parse(style.color);
  const front = over([...ink.slice(0, 3), ink[3] * faded(element)], back);
  const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.6 && style.fontWeight >= 700);
  seen++;
  if (ratio < (large ? 3 : 4.5)) bad[`${element.tagName}.${element.className}`] = ratio;
}
return [seen, bad];
