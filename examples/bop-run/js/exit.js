// Ends by itself with an exit code that is not 0.
print('leaving');
std.exit(10 + Number(scriptArgs[0]) % 90);
