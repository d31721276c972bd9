"""A page to look through a campaign's results, and to pick from them. May import endpoints, fetch, jobs and errors.

`page` gathers the rows and writes the page, `posters` makes a still of each file once, `files` says where a file stands
as seen from the page, `again` is the row that asks for one more. `page.html`, `page.css` and the scripts are what a
browser gets, put into one file: `logic.js` is what can be said without a page, the others, from `rows.js` to `page.js`,
are the chapters of one script. Nothing of it is asked from a network.
"""

from batch.export.gallery.page import About, Gallery, SavedFile, Shown, is_there, write_gallery

__all__ = ["About", "Gallery", "SavedFile", "Shown", "is_there", "write_gallery"]
