"""The comparison behind `bench/run`.

main        what one call does, from the first build to the last line of the table
options     the command line
brokers/    how each broker is built, started, stopped and frozen
workloads   what is measured, and with which words of the load generator
generator   runs `weir bench`
comparison  turns, rounds, warm-up, calibration
machine     memory, page cache, CPU, block device and ports of this machine
goals       the lines of the result and what each has to reach
results     the raw file and the table
"""
