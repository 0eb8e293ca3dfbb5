"""How a job goes on: from a checkpoint (`resume=`), or where an earlier start of its sweep left it (`skip_done=`)."""
