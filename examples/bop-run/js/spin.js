// Never ends and calls nothing that could give up the turn.
for (;;) {}
