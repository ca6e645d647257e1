"""Where trials run: in processes of this machine or jobs of a cluster; and how they are shown."""
