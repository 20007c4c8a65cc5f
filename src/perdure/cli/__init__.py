"""The command line. It speaks to Host and the contract; what a person sees is made here and nowhere else."""
