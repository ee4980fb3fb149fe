"""The machine room of a run: its folder, atomic files, lock, processes, and the job that a command is."""
