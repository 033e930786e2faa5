// The plain recursion, on purpose: nothing but calls.
const n = 16 + Number(scriptArgs[0]) % 10;
const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));
print(fib(n));
