"""The comparison behind `bench/run`.

main        what one call does, from the first build to the last line of the table
options     the command line
brokers/    how each broker is built, started, stopped and frozen
workloads   what is measured in every round, and with which words of the load generator
scenarios/  what needs more: cold reads, many topics, restarts, idle connections
generator   runs the load generators
comparison  phases, warm-up, calibration, rounds
turns       who has the machine, and in which state it is when a turn begins
machine     memory, page cache, CPU, block device and ports of this machine
probe       one message by hand: is a broker there, how long is its log
goals       the lines of the result and what each has to reach
report/     the raw file, the tables, the plots, the page
"""
