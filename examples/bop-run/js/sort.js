// Sorts pseudo-random numbers and prints a hash of the sequence.
let x = Number(scriptArgs[0]);
const numbers = [];
for (let i = 0; i < 6000; i++) {
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  numbers.push(x);
}
numbers.sort((a, b) => a - b);
let hash = 0x811c9dc5;
for (const n of numbers) hash = Math.imul(hash ^ n, 0x01000193) >>> 0;
print(hash, numbers[0], numbers[numbers.length - 1]);
