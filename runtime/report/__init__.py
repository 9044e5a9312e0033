"""report.html: one page that tells all of a run, made from what lies in its folder."""
