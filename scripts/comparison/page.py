"""report.html, self-contained, and report.md."""
import base64
import html
import re

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
       max-width: 1240px; padding: 0 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.5rem 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 2px solid #0072B2; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
p.note, figcaption { color: #555; font-size: .88rem; max-width: 70ch; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: left; vertical-align: top;
         border-bottom: 1px solid #ddd; min-width: 3.6rem; }
th { background: #f2f6f9; font-weight: 600; }
tr:hover td { background: #fafcfe; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: .5rem 0; flex: 1 1 320px; max-width: 530px; min-width: 0; }
.maps figure { flex-basis: 100%; max-width: 100%; }
img { max-width: 100%; height: auto; }
.maps img { max-width: none; image-rendering: pixelated; }
.maps .scroll { border: 1px solid #ddd; }
ol.commands li { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .8rem;
                 margin-bottom: .35rem; }
ul.summary li { margin-bottom: .4rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
"""


def escaped(text):
    """Text as HTML; [12] is a link to command 12."""
    return re.sub(r"\[(\d+)\]", r'<a href="#command-\1">[\1]</a>', html.escape(str(text)))


def html_table(table):
    head = "".join(f"<th>{html.escape(h)}</th>" for h in table.header)
    body = "\n".join("<tr>" + "".join(f"<td>{escaped(c)}</td>" for c in row) + "</tr>"
                     for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (f"<h3>{html.escape(table.title)}</h3>{note}\n<div class=\"scroll\"><table><thead><tr>"
            f"{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>")


def figure(path, caption, scrolls):
    data = base64.b64encode(path.read_bytes()).decode()
    picture = f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
    if scrolls:
        picture = f'<div class="scroll">{picture}</div>'
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def section_id(title):
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def write_html(path, title, head, summary, sections, commands):
    """`sections`: (title, paragraphs, tables, figures, class of the figures)."""
    parts = ["<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
             f"<title>{title}</title>"
             '<meta name="viewport" content="width=device-width, initial-scale=1">'
             f"<style>{STYLE}</style></head><body><h1>{title}</h1>"]
    parts += [f"<p>{escaped(text)}</p>" for text in head]
    parts.append("<nav>" + " ".join(f'<a href="#{section_id(s[0])}">{html.escape(s[0])}</a>'
                                   for s in sections) + ' <a href="#commands">Commands</a></nav>')
    parts.append('<h2>What came out</h2><ul class="summary">' + "".join(
        f"<li>{html.escape(line)}</li>" for line in summary) + "</ul>")
    for name, paragraphs, tables, figures, kind in sections:
        parts.append(f'<h2 id="{section_id(name)}">{html.escape(name)}</h2>')
        parts += [f"<p>{escaped(text)}</p>" for text in paragraphs]
        if kind == "charts":
            parts.append(f'<div class="{kind}">' + "".join(
                figure(p, c, False) for p, c in figures) + "</div>")
        parts += [html_table(table) for table in tables]
        if kind != "charts":
            parts.append(f'<div class="{kind}">' + "".join(
                figure(p, c, True) for p, c in figures) + "</div>")
    parts.append('<h2 id="commands">Commands</h2><p>Each number above follows from the commands '
                 "with its number; with the same seed and build they give the same bits. Programs "
                 'lie in the build folder\'s <code>examples/</code>.</p><ol class="commands">')
    parts += [f'<li id="command-{i}">{html.escape(c)}</li>' for i, c in enumerate(commands, 1)]
    parts.append("</ol></body></html>\n")
    path.write_text("\n".join(parts))


def markdown_table(table, level):
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"
    rows = [line(table.header), "|" + "---|" * len(table.header)] + [line(r) for r in table.rows]
    note = f"\n{table.note}\n" if table.note else ""
    return f"{'#' * level} {table.title}\n{note}\n" + "\n".join(rows) + "\n"


def markdown(title, head, summary, sections, commands, level=1, output=None):
    """The report as Markdown, its title a heading of that level; with figures if `output` is given,
    the folder that their paths are relative to."""
    def heading(text, below):
        return f"{'#' * (level + below)} {text}\n"
    parts = [heading(title, 0), *[text + "\n" for text in head], heading("What came out", 1),
             "\n".join(f"- {line}" for line in summary) + "\n"]
    for name, paragraphs, tables, figures, _ in sections:
        if not tables and output is None:
            continue
        parts.append(heading(name, 1))
        parts += [text + "\n" for text in paragraphs]
        parts += [markdown_table(table, level + 2) for table in tables]
        parts += [f"![{c}]({p.relative_to(output)})\n" for p, c in figures if output is not None]
    parts.append(heading("Commands", 1))
    parts.append("\n".join(f"{i}. `{c}`" for i, c in enumerate(commands, 1)) + "\n")
    return "\n".join(parts)
