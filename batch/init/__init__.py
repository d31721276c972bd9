"""A campaign to start from: a commented YAML file and a sheet with the endpoint's fields, for a person to fill in.

start.py decides what is made and writes it; columns.py says what the sheet's columns are, campaign.py words the YAML
file, workbook.py builds the sheet for Excel, pictures.py finds pictures and draws the one of the example.
"""

from batch.init.start import Started, start

__all__ = ["Started", "start"]
