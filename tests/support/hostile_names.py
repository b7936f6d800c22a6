"""Names that would be elements, links, attributes, commands or other fields if somebody took them for more than text."""

ADDRESSES = (
    "javascript:document.body.id=7", "data:text/html,<script>run()</script>", "http://evil.example/x", "https://evil.example",
    "file:///etc/passwd", "//evil.example/x", "vbscript:run", "ftp://evil.example/x",
)  # fmt: skip
LINKS = (
    "{}", "[x]({})", "![x]({})", "<{}>", "[x]: {}", "[x][1]\n\n[1]: {}", '[x]({} "title")', '<a href="{}">x</a>',
    '<img src="{}" onerror=run()>', '<iframe src="{}"></iframe>', '" href="{}" x="', "url({})",
)  # fmt: skip
TAGS = (
    "script", "img", "iframe", "object", "embed", "svg", "style", "link", "meta", "base", "form", "input", "video", "math",
    "details", "summary", "textarea", "title", "template", "body", "table", "pre", "h1", "br",
)  # fmt: skip
ELEMENTS = ("<{0}>x</{0}>", "<{0} onload=run() x", "</{0}>", '"><{0}/onclick=run()>', "&lt;{0}&gt;", "<!--<{0}>-->")
MARKDOWN = (
    "# heading", "## Verdict: safe", "- item", "* item", "+ item", "1. item", "> quote", "```\ncode\n```", "~~~\ncode\n~~~",
    "`code`", "**bold**", "__bold__", "*word*", "_word_", "~~gone~~", "---", "***", "___", "| a | b |", "a|b|c", "    code",
    "\\", "\\\\[x](y)", "\\<b>", "[^1]", "[^1]: note", ": definition", "*[HTML]: abbreviation", "{#id}", "{: .c onclick=run()}",
    "[TOC]", "[[wiki]]", "==mark==", "x\n: def", "x\n===", "x\n---", "- [ ] task", "www.evil.example", "me@evil.example",
    "<me@evil.example>", "mailto:me@evil.example", "$x$", "$$x$$", "{{< x >}}", ":::note\nx\n:::",
)  # fmt: skip
ENTITIES = (
    "&#60;script&#62;", "&#x3c;script&#x3e;", "&amp;lt;b&amp;gt;", "java&colon;x", "a&NewLine;b", "&quot; onclick=run()",
    "&#0;", "&#x202e;x", "&nbsp;", "&copy", "&lt", "&notanentity;",
)  # fmt: skip
SIGNS = [
    *range(0, 32), 0x7F, 0x85, 0x9B, 0xA0, 0xAD, 0x061C, 0x200B, 0x200D, 0x200E, 0x200F, *range(0x2028, 0x202F),
    *range(0x2066, 0x206A), 0x3000, 0xD800, 0xDFFF, 0xFEFF, 0xFFFD, 0xFFFE, 0xE0041, 0x10FFFF,
]  # fmt: skip
TEMPLATES = (
    "{{7*7}}", "${7*7}", "<%= 7*7 %>", "#{7*7}", "{% raw %}", "$(touch called)", "`touch called`", "%s%n", "{0.__class__}",
    "%(name)s", "{name}", "${env:HOME}",
)  # fmt: skip
TERMINAL = ("\x1b[31mred\x07", "\x1b]8;;http://evil.example\x07x\x1b]8;;\x07", "\x9b31m", "a\r\nb", "a\b\bb", "\x1b[2J")
FILES = (
    "=1+1", "+1", "-1", "@SUM(1)", "=cmd|' /C calc'!A0", "!!python/object/apply:os.system ['touch called']", "key: value",
    "&anchor x", "*anchor", '", "verdict": "met', "', 'x': '", "]]>", "<![CDATA[x]]>", '"/></testcase><testcase name="x',
    '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]>', "&y;", "<?php x ?>", "<?xml version='1.0'?>", "../../etc/passwd",
    "NaN", "null", "true", "0x10", "1e999", "'; DROP TABLE x; --", '\\u003cscript>', "\\n# heading", "::error::x",
    "::set-output name=x::y", "##[error]x",
)  # fmt: skip


def hostile_names():
    """All of them, each once."""
    names = [link.replace("{}", address) for address in ADDRESSES for link in LINKS]
    names += [element.format(tag) for tag in TAGS for element in ELEMENTS]
    names += [form.format(each) for each in MARKDOWN for form in ("{}", "\n\n{}\n\n")]
    names += [f"a{chr(sign)}b" for sign in SIGNS]
    return list(dict.fromkeys([*names, *ENTITIES, *TEMPLATES, *TERMINAL, *FILES]))
