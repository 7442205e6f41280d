"""`leveret bench`: loads any AMQP 0-9-1 broker, measures it, and checks that nothing is lost or changed.

Theory of operation
-------------------
One process, one thread, one epoll (more processes only where operations go on side by side): the generator
has to cost little, or it would measure itself. What makes it cheap is that a load is regular. A run of
publishes, or of deliveries, is a table whose rows differ in a counter or two, and `rows.py` builds a thousand
rows with a few assignments. To send is to build rows; to check what came is to build the rows that are due
and to compare all their bytes at once. The first delivery of a stream, and whatever is not exactly what was
due, is read frame by frame with Leveret's own codec (`inbox.py`); only that path judges, so the fast one
cannot hide a fault.

    rows.py        many equal frames at once
    order.py       which message is due next; lost, doubled, out of order; each confirm once
    figures.py     latency histograms, when messages were sent or due, rates, medians
    wire.py        a URL, a connection, a call and its reply
    inbox.py       a connection's input: streams of deliveries, confirms, everything else
    publisher.py   publishes as fast as the broker takes them, within a window, or at a rate
    loop.py        the epoll loop, ticks and the end of a run
    processes.py   CPU time and resident size of the broker, from /proc
    run.py flows.py          a run of a scenario; flows of messages, and their phases
    scenarios.py operations.py idle.py    what each scenario sets up and does, and the table of them
    runner.py report.py plot.py command.py   runs, the table for people and JSON, the chart, the options
"""
