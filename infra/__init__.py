"""Where it runs: the command line, the home folder and the processes of one machine."""
