// Recurses until the engine runs off the stack that it keeps in linear memory: a trap.
print('down');
const down = (n) => down(n + 1) + 1;
down(0);
