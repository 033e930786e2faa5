// A factorial with thousands of digits: big integers, so memory that grows and moves.
const n = 400 + (Number(scriptArgs[0]) * 7) % 800;
let product = 1n;
for (let i = 2n; i <= n; i++) product *= i;
print(n, product % 1000003n, product % 998244353n);
