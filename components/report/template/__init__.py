"""The template, the style and the script of the page; `components.report.page` puts them together."""
