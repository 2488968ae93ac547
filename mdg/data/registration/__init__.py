"""Where two fixed cameras look at the same: a rig that brings thermal pixels onto those of RGB, found from pairs."""
