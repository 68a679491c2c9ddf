//! Names and plain texts made of what a document says. Nothing that leaves here holds `{{`.

use std::collections::HashMap;

/// How much of a text is looked at, in characters.
const MAX_READ: usize = 2_000;

/// A name of `a-z`, `0-9` and `_`, a letter first, of 2 to `max` characters; none where a text has no letter or digit.
/// `GetHTTPStatus` is `get_http_status`.
pub(super) fn snake_case(text: &str, max: usize) -> Option<String> {
    let letters: Vec<char> = text.chars().take(MAX_READ).collect();
    let mut name = String::new();
    for (index, letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            separate(&mut name);
            continue;
        }
        let before = index.checked_sub(1).map(|index| letters[index]);
        let after = letters.get(index + 1);
        let begins_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                !before.is_ascii_uppercase() || after.is_some_and(|after| after.is_ascii_lowercase())
            });
        if begins_word {
            separate(&mut name);
        }
        name.push(letter.to_ascii_lowercase());
    }
    if name.is_empty() {
        return None;
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) || name.len() < 2 {
        name.insert_str(0, "n_");
    }
    name.truncate(max);
    Some(name.trim_end_matches('_').to_owned())
}

fn separate(name: &mut String) {
    if !name.is_empty() && !name.ends_with('_') {
        name.push('_');
    }
}

/// Makes names differ by a number at their end.
#[derive(Default)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// The name, or where it is taken `name_2`, `name_3` and so on, of at most `max` characters.
    pub(super) fn unique(&mut self, name: String, max: usize) -> String {
        let mut candidate = name.clone();
        while self.0.contains_key(&candidate) {
            let count = self.0.entry(name.clone()).or_insert(1);
            *count += 1;
            let suffix = format!("_{count}");
            candidate = format!("{}{suffix}", &name[..name.len().min(max - suffix.len())]);
        }
        self.0.insert(candidate.clone(), 1);
        candidate
    }
}

/// A connector's name: its title's words without those that say nothing.
pub(super) fn connector_name(title: &str) -> String {
    let title = title.to_lowercase();
    let words = title.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| {
        let version = word.strip_prefix('v').is_some_and(|rest| rest.chars().all(|letter| letter.is_ascii_digit()));
        !version && !matches!(*word, "" | "api" | "apis" | "rest" | "openapi" | "http" | "the")
    });
    snake_case(&words.collect::<Vec<_>>().join("_"), 40).unwrap_or_else(|| "imported".to_owned())
}

/// A name as a label: `starting_after` is `Starting after`.
pub(super) fn label(name: &str) -> String {
    let words = snake_case(name, 60).unwrap_or_default().replace('_', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => clip(&bare(name), 60),
    }
}

/// The first sentence or two of a text in Markdown or HTML, of at most `max` characters.
pub(super) fn plain(text: &str, max: usize) -> Option<String> {
    let text: String = text.chars().take(MAX_READ).collect();
    let text = without_tags(&text.replace("\r\n", "\n"));
    let paragraphs = text.split("\n\n").map(|paragraph| without_markup(paragraph.trim()));
    let paragraph = paragraphs.into_iter().find(|paragraph| !paragraph.is_empty())?;
    Some(sentences(&bare(&paragraph), max))
}

/// A text in which no expression begins.
fn bare(text: &str) -> String {
    let mut text = text.replace(|letter: char| letter.is_control(), " ");
    while text.contains("{{") {
        text = text.replace("{{", "{ {");
    }
    text
}

/// At most so many characters.
pub(super) fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
    }
}

/// Takes the tags of HTML out; those of blocks end a paragraph.
fn without_tags(text: &str) -> String {
    const BLOCKS: [&str; 11] = ["p", "br", "div", "ul", "ol", "li", "table", "tr", "h1", "h2", "h3"];
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        plain.push_str(&rest[..start]);
        let inside = &rest[start + 1..];
        let begins = inside.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '/' | '!'));
        match inside.find('>').filter(|_| begins) {
            Some(end) if inside.starts_with("http") => {
                plain.push_str(&inside[..end]);
                rest = &inside[end + 1..];
            }
            Some(end) => {
                let name = inside[..end].trim_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next();
                if name.is_some_and(|name| BLOCKS.contains(&name.to_ascii_lowercase().as_str())) {
                    plain.push_str("\n\n");
                }
                rest = &inside[end + 1..];
            }
            None => {
                plain.push('<');
                rest = inside;
            }
        }
    }
    plain.push_str(rest);
    let entities = [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.into_iter().fold(plain, |plain, (entity, letter)| plain.replace(entity, letter))
}

/// Takes the signs of Markdown out of a paragraph; a heading, a table, a picture or code is nothing.
fn without_markup(paragraph: &str) -> String {
    let lines = paragraph.lines().map(str::trim).filter(|line| !line.starts_with(['#', '|', '!']));
    let text: String = lines.flat_map(|line| [line, " "]).collect();
    if text.starts_with("```") || text.starts_with("---") {
        return String::new();
    }
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find('[') {
        plain.push_str(&rest[..start]);
        let inside = &rest[start + 1..];
        let link = inside.split_once("](").and_then(|(label, rest)| Some((label, rest.split_once(')')?.1)));
        rest = match link.filter(|(label, _)| !label.contains(['[', ']'])) {
            Some((label, after)) => {
                plain.push_str(label);
                after
            }
            None => {
                plain.push('[');
                inside
            }
        };
    }
    plain.push_str(rest);
    plain.replace(['*', '`'], "").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentences(text: &str, max: usize) -> String {
    let ends = text.match_indices(". ").map(|(index, _)| index + 1);
    let ends = ends.filter(|end| text[end + 1..].starts_with(char::is_uppercase)).chain([text.len()]);
    let fitting = ends.take(2).take_while(|end| text[..*end].chars().count() <= max).last();
    fitting.map_or_else(|| clip(text, max), |end| text[..end].to_owned())
}
