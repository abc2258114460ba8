//! What is rewritten in a template's source before it is compiled: Transformers' own tag, and loops over nothing.
//!
//! `{% generation %} … {% endgeneration %}` tells a trainer where the assistant's words stand and changes no text: it
//! becomes a block of a scope of its own, which is what it is to Jinja. And a loop over None, such as over `tools` when
//! there are none, is an error in Python; minijinja would take it for an empty list and render what Transformers refuses.

use std::ops::Range;

/// The filter that a loop's values pass.
pub(super) const ITERATED: &str = "__iterated";

/// The source as minijinja takes it.
pub(super) fn rewrite(source: &str) -> String {
    // Jinja reads every kind of line break as one, also within strings.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut rewritten = String::with_capacity(source.len());
    let mut copied = 0;
    for tag in Tags::new(&source) {
        for (range, replacement) in replacements(&source, tag) {
            rewritten.push_str(&source[copied..range.start]);
            rewritten.push_str(&replacement);
            copied = range.end;
        }
    }
    rewritten.push_str(&source[copied..]);
    rewritten
}

/// What takes the place of which bytes of a tag.
fn replacements(source: &str, tag: Range<usize>) -> Vec<(Range<usize>, String)> {
    let mut words = Words { source, at: tag.start, end: tag.end };
    let Some(first) = words.next() else { return Vec::new() };
    match &source[first.clone()] {
        "generation" => vec![(first, "with".to_owned())],
        "endgeneration" => vec![(first, "endwith".to_owned())],
        "for" => {
            let Some(of) = words.find(|word| &source[word.clone()] == "in") else { return Vec::new() };
            let end = words.find(|word| matches!(&source[word.clone()], "if" | "recursive"));
            let (looped, after) = end.map_or((of.end..tag.end, ""), |word| (of.end..word.start, " "));
            vec![(looped.clone(), format!(" ({}) | {ITERATED}{after}", source[looped].trim()))]
        }
        _ => Vec::new(),
    }
}

/// The insides of a source's `{% … %}`, without those in comments and in what is raw.
struct Tags<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Tags<'a> {
    fn new(source: &'a str) -> Self {
        Self { source, at: 0 }
    }

    /// Where `end` begins, from here on and outside of strings and brackets.
    fn end_of(&self, from: usize, end: &str) -> Option<usize> {
        let mut scan = Scan::new(self.source, from);
        loop {
            if scan.depth == 0 && self.source[scan.at..].starts_with(end) {
                return Some(scan.at);
            }
            scan.step()?;
        }
    }

    /// The byte after the `{% endraw %}` that comes next.
    fn after_raw(&self, from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            at += self.source[at..].find("{%")? + 2;
            let inside = self.source[at..].trim_start_matches(['-', '+']).trim_start();
            if let Some(rest) = inside.strip_prefix("endraw") {
                let rest = rest.trim_start().trim_start_matches(['-', '+']);
                if rest.starts_with("%}") {
                    return Some(self.source.len() - rest.len() + 2);
                }
            }
        }
    }
}

impl Iterator for Tags<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let open = self.at + self.source[self.at..].find('{')?;
            let inside = open + 2;
            self.at = match self.source.get(open..inside) {
                Some("{#") => inside + self.source[inside..].find("#}")? + 2,
                Some("{{") => self.end_of(inside, "}}")? + 2,
                Some("{%") => {
                    let end = self.end_of(inside, "%}")?;
                    let tag = trimmed(self.source, inside..end);
                    if &self.source[tag.clone()] == "raw" {
                        self.after_raw(end)?
                    } else {
                        self.at = end + 2;
                        return Some(tag);
                    }
                }
                _ => open + 1,
            };
        }
    }
}

/// A tag's inside without what controls white space around it.
fn trimmed(source: &str, inside: Range<usize>) -> Range<usize> {
    let all = &source[inside.clone()];
    let end = all.trim_end_matches(['-', '+']).trim_end();
    let text = end.trim_start_matches(['-', '+']).trim_start();
    let start = inside.start + end.len() - text.len();
    start..start + text.len()
}

/// The words of an expression that stand outside of strings and brackets.
struct Words<'a> {
    source: &'a str,
    at: usize,
    end: usize,
}

impl Iterator for Words<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let mut scan = Scan::new(self.source, self.at);
        while scan.at < self.end {
            let rest = &self.source[scan.at..self.end];
            let length = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(rest.len());
            if length > 0 {
                let word = scan.at..scan.at + length;
                scan.at = word.end;
                // What follows a dot is an attribute, whatever it is called.
                let attribute = self.source[..word.start].trim_end().ends_with('.');
                if scan.depth == 0 && !attribute {
                    self.at = scan.at;
                    return Some(word);
                }
            } else {
                scan.step()?;
            }
        }
        self.at = self.end;
        None
    }
}

/// Goes through an expression, over strings as a whole, and counts brackets.
struct Scan<'a> {
    source: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Scan<'a> {
    fn new(source: &'a str, at: usize) -> Self {
        Self { source, at, depth: 0 }
    }

    fn step(&mut self) -> Option<()> {
        let letter = self.source[self.at..].chars().next()?;
        self.at += letter.len_utf8();
        match letter {
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            '\'' | '"' => {
                let mut escaped = false;
                let length = self.source[self.at..].find(|other: char| {
                    let closes = other == letter && !escaped;
                    escaped = other == '\\' && !escaped;
                    closes
                })?;
                self.at += length + 1;
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn only_tags_are_rewritten() {
        let kept = "{# {% generation %} #}{{ '{% generation %}' }}{% raw %}{% generation %}{% for a in b %}{%- endraw \
                    -%}{% set generation = {'a': '%}'} %}{{ {'a': {}} }} generation { % for";
        assert_eq!(rewrite(kept), kept);
        assert_eq!(
            rewrite("{%- generation -%}a{% raw %}{%{% endraw %}{%+ endgeneration %}"),
            "{%- with -%}a{% raw %}{%{% endraw %}{%+ endwith %}"
        );
    }

    #[test]
    fn what_a_loop_goes_over_passes_a_filter() {
        assert_eq!(rewrite("{% for a in b %}"), "{% for a in (b) | __iterated %}");
        assert_eq!(
            rewrite("{%- for a, b in x['if'].in.items() if a not in c recursive -%}"),
            "{%- for a, b in (x['if'].in.items()) | __iterated if a not in c recursive -%}"
        );
        assert_eq!(
            rewrite("{% for a in [b if c else d] + (e if f) %}"),
            "{% for a in ([b if c else d] + (e if f)) | __iterated %}"
        );
    }

    #[test]
    fn a_broken_source_is_left_to_the_compiler() {
        for source in ["{% for", "{% for a %}", "{{ 'a", "{% raw %}{% endraw", "{#", "{", "{%é", "{% for in %}"] {
            assert!(rewrite(source).starts_with(&source[..2.min(source.len())]), "{source}");
        }
        assert_eq!(rewrite("a\r\nb\rc"), "a\nb\nc");
    }
}
