"""What runs here and for whom: the commit of the user's project, and the job of the cluster."""
