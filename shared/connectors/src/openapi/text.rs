//! Names and plain texts made of what a document says. Nothing that leaves here holds `{{`.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// How much of a text is looked at, in characters.
const MAX_READ: usize = 2_000;

/// A name of `a-z`, `0-9` and `_`, a letter first, of 2 to `max` characters; none where a text has no letter or digit.
/// `GetHTTPStatus` is `get_http_status`.
pub(super) fn snake_case(text: &str, max: usize) -> Option<String> {
    let mut name = words(text);
    if name.is_empty() {
        return None;
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) || name.len() < 2 {
        name.insert_str(0, "n_");
    }
    name.truncate(max);
    Some(name.trim_end_matches('_').to_owned())
}

/// A text's words in small letters, with `_` between them.
fn words(text: &str) -> String {
    let letters: Vec<char> = text.replace("OAuth", "Oauth").chars().take(MAX_READ).collect();
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
    name.trim_end_matches('_').to_owned()
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
    let words = words(name).replace('_', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => clip(&first.to_uppercase().chain(letters).collect::<String>(), 60),
        None => clip(&bare(name), 60),
    }
}

/// The first sentence or two of a text in Markdown or HTML, of at most `max` characters.
pub(super) fn plain(text: &str, max: usize) -> Option<String> {
    let mut text: String = text.chars().take(MAX_READ).collect::<String>().replace('\r', "");
    for (pattern, replacement) in MARKUP.iter() {
        text = pattern.replace_all(&text, *replacement).into_owned();
    }
    let entities = [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    let text = entities.into_iter().fold(text, |text, (entity, letter)| text.replace(entity, letter));
    let mut paragraphs = text.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let paragraph = paragraphs.find(|paragraph| paragraph.contains(char::is_alphanumeric))?;
    Some(sentences(&bare(&paragraph), max))
}

/// The signs of HTML and Markdown and what comes in their place, in this order. What is no tag of HTML, such as
/// `<api_key>`, stays.
static MARKUP: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let signs = [
        (r"(?s)<!--.*?-->|```.*?(```|$)|!\[[^\]]*\]\([^)]*\)", ""),
        (r"(?m)^ *([#|!].*|-{3,}|={3,}) *$", "\n"),
        (r"(?i)</?(p|br|div|ul|ol|li|table|tr|td|th|h\d)\b[^>]*>", "\n\n"),
        (r"(?i)</?(a|b|code|em|font|i|img|kbd|pre|span|strong|sub|sup|tt|u)\b[^>]*>", ""),
        (r"<(https?://[^>\s]*)>", "$1"),
        (r"\[([^\[\]]*)\]\([^)]*\)", "$1"),
        (r"(^|[\s(])_+([^_]+)_+([\s.,;:!?)]|$)", "$1$2$3"),
        (r"[*`]", ""),
    ];
    signs.into_iter().filter_map(|(pattern, replacement)| Some((Regex::new(pattern).ok()?, replacement))).collect()
});

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

fn sentences(text: &str, max: usize) -> String {
    let ends = text.match_indices(". ").map(|(index, _)| index + 1);
    let ends = ends.filter(|end| text[end + 1..].starts_with(char::is_uppercase)).chain([text.len()]);
    let fitting = ends.take(2).take_while(|end| text[..*end].chars().count() <= max).last();
    fitting.map_or_else(|| clip(text, max), |end| text[..end].to_owned())
}
