// Writes a text of three-letter words, then counts the words and prints the five most frequent.
let x = Number(scriptArgs[0]);
let text = '';
for (let i = 0; i < 12000; i++) {
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  text += 'abcd'[x >>> 30];
  if (i % 3 === 2) text += i % 2 ? ', ' : '\n';
}
const counts = new Map();
for (const word of text.split(/[,\s]+/)) {
  if (word === '') continue;
  const key = word.replace(/a/g, 'x').toUpperCase();
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
const order = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
print(order.slice(0, 5).map(([word, n]) => `${word}:${n}`).join(' '));
