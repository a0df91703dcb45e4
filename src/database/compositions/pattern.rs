//! The patterns for AT answers in `compositions.toml`.
//!
//! A pattern is the text of a line with placeholders: `{value}` matches one value, `{values}` matches a list of values
//! and ranges (`0-3,5` or `(0-3,5)`) and ignores what follows the list, `{*}` matches anything. Spaces, quotation marks
//! around values, and letter case are ignored, because they differ between firmware versions. A value or list without
//! text before it must begin with a digit: other words may be messages from the modem.

use serde::Deserialize;

/// More values than any modem lists. Limits the expansion of a range like `0-4294967295`.
const LONGEST_LIST: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Text(String),
    Value,
    Values,
    Anything,
}

/// The text of one line, with a placeholder for the part to read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Vec<Token>);

#[derive(Debug, thiserror::Error)]
pub enum BadPattern {
    #[error("a pattern can have only one of {{value}} and {{values}}")]
    Ambiguous,
    #[error("unknown placeholder {{{0}}}: expected {{value}}, {{values}} or {{*}}")]
    Unknown(String),
    #[error("two placeholders need text between them")]
    Adjacent,
    #[error("{{values}} must be at the end")]
    NotLast,
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Pattern, BadPattern> {
        let mut tokens = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let start = rest.find('{').unwrap_or(rest.len());
            let (literal, after) = rest.split_at(start);
            let literal = squeeze(literal);
            if !literal.is_empty() {
                tokens.push(Token::Text(literal));
            }
            let Some((name, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) else {
                if after.is_empty() {
                    break;
                }
                return Err(BadPattern::Unknown(after.trim_start_matches('{').to_owned()));
            };
            let token = match name {
                "value" => Token::Value,
                "values" => Token::Values,
                "*" => Token::Anything,
                name => return Err(BadPattern::Unknown(name.to_owned())),
            };
            if tokens.last().is_some_and(|last| !matches!(last, Token::Text(_))) {
                return Err(BadPattern::Adjacent);
            }
            if token == Token::Values && !after.is_empty() {
                return Err(BadPattern::NotLast);
            }
            tokens.push(token);
            rest = after;
        }
        let places = tokens.iter().filter(|token| matches!(token, Token::Value | Token::Values)).count();
        if places > 1 { Err(BadPattern::Ambiguous) } else { Ok(Pattern(tokens)) }
    }
}

impl Pattern {
    /// Whether the pattern extracts a value or a list from a line.
    pub fn reads(&self) -> bool {
        self.0.iter().any(|token| matches!(token, Token::Value | Token::Values))
    }

    /// A line from which the pattern extracts `value` or the list `values`.
    #[cfg(test)]
    pub fn line(&self, value: &str, values: &str) -> String {
        let text = |token: &Token| match token {
            Token::Text(text) => text.clone(),
            Token::Value => value.to_owned(),
            Token::Values => values.to_owned(),
            Token::Anything => "1".to_owned(),
        };
        self.0.iter().map(text).collect()
    }

    /// What the pattern extracts from `line`. Empty if it extracts nothing. `None` if the line does not match.
    pub fn read(&self, line: &str) -> Option<Vec<String>> {
        let line = squeeze(line);
        let mut rest = line.as_str();
        let is_word = |text: &str| !text.trim_start_matches(['(', '"']).starts_with(|c: char| c.is_ascii_digit());
        if matches!(self.0.first(), Some(Token::Value | Token::Values)) && is_word(rest) {
            return None;
        }
        let mut read = Vec::new();
        let mut tokens = self.0.iter().peekable();
        while let Some(token) = tokens.next() {
            // Read up to the next fixed text of the pattern.
            let end = match (token, tokens.peek()) {
                (Token::Text(text), _) => {
                    rest = strip(rest, text)?;
                    continue;
                }
                (_, Some(Token::Text(text))) => find(rest, text)?,
                _ => rest.len(),
            };
            let (taken, after) = rest.split_at_checked(end)?;
            rest = after;
            match token {
                Token::Value => read.push(value(taken)?),
                Token::Values => read.extend(expand(first_list(taken)?)?),
                Token::Anything | Token::Text(_) => {}
            }
        }
        rest.is_empty().then_some(read)
    }
}

/// Removes all whitespace.
fn squeeze(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_whitespace()).collect()
}

fn strip<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn find(text: &str, part: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(&part.to_ascii_lowercase())
}

/// Whether `text` can be the value of a composition. Other lines contain other characters.
pub(crate) fn is_value(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b';'))
}

/// The value in `text`, without quotation marks.
fn value(text: &str) -> Option<String> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    is_value(text).then(|| text.to_owned())
}

/// The list at the start of `text`, without parentheses.
fn first_list(text: &str) -> Option<&str> {
    match text.strip_prefix('(') {
        Some(list) => Some(list.split_once(')')?.0),
        None => Some(text),
    }
}

/// Expands `0-3,5` to 0, 1, 2, 3, 5. `None` if it is not a list.
fn expand(list: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for item in list.split(',') {
        match item.split_once('-') {
            Some((first, last)) => values.extend(range(first, last)?),
            None => values.push(value(item)?),
        }
        if values.len() > LONGEST_LIST {
            return None;
        }
    }
    Some(values)
}

/// Expands `0-3`, or `9000-900F` as hex digits.
fn range(first: &str, last: &str) -> Option<Vec<String>> {
    let numbers = |radix| Some((u32::from_str_radix(first, radix).ok()?, u32::from_str_radix(last, radix).ok()?));
    let decimal = numbers(10);
    let (start, end) = decimal.or_else(|| numbers(16))?;
    if start > end || (end - start) as usize >= LONGEST_LIST {
        return None;
    }
    let text = |number: u32| match decimal {
        Some(_) => number.to_string(),
        None => format!("{number:0width$X}", width = first.len()),
    };
    Some((start..=end).map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn values_and_lists_are_taken_from_their_line() {
        for (text, line, expected) in [
            ("+QCFG: \"usbnet\",{value}", "+QCFG: \"usbnet\",0", Some(&["0"][..])),
            ("+QCFG: \"usbnet\",{value}", "+qcfg:\"usbnet\", 0", Some(&["0"])),
            ("+QCFG: \"usbnet\",{value}", "+QCFG: \"usbnet\",", None),
            ("+QCFG: \"usbnet\",{value}", "+QCFG: \"usbspeed\",0", None),
            ("+QCFG: \"usbnet\",{values}", "+QCFG: \"usbnet\",(0-3,5)", Some(&["0", "1", "2", "3", "5"])),
            ("+QCFG: \"usbnet\",{values}", "+QCFG: \"usbnet\",(0-3),(0,1)", Some(&["0", "1", "2", "3"])),
            ("+GTUSBMODE: {values}", "+GTUSBMODE: (17-18,20)", Some(&["17", "18", "20"])),
            ("+GTUSBMODE: {values}", "+GTUSBMODE: 0,7,9", Some(&["0", "7", "9"])),
            ("+GTUSBMODE: {values}", "+GTUSBMODE: 0-2", Some(&["0", "1", "2"])),
            ("+GTUSBMODE: {values}", "+GTUSBMODE: (0),(1)", Some(&["0"])),
            ("+CUSBPIDSWITCH: {values}", "+CUSBPIDSWITCH: (9001,901E),(0-1),(0-1)", Some(&["9001", "901E"])),
            (
                "+CUSBPIDSWITCH: {values}",
                "+CUSBPIDSWITCH: (\"9001\",9009-900B)",
                Some(&["9001", "9009", "900A", "900B"]),
            ),
            ("+ZSWITCH: {values}", "+ZSWITCH: (\"l\",\"r\",\"x\")", Some(&["l", "r", "x"])),
            ("+ZSWITCH: {value}", "+ZSWITCH: \"x\"", Some(&["x"])),
            ("+ZSWITCH: {value}", "+ZSWITCH: \"", None),
            ("+UUSBCONF: {value},{*}", "+UUSBCONF: 2,\"ECM\",,\"0x1104\"", Some(&["2"])),
            ("result(0:NO 1:YES):{value}", "result(0:NO 1:YES):1", Some(&["1"])),
            ("^SETPORT:{value}:{*}", "^SETPORT:A1: CDROM", Some(&["A1"])),
            ("^SETPORT:{value}", "^SETPORT:A1,A2;10,12", Some(&["A1,A2;10,12"])),
            ("{value}", "4", Some(&["4"])),
            ("{value}", "+CREG: 2", None),
            ("{value}", "RING", None),
            ("{values}", "RDY", None),
            ("{values}", "(0-2)", Some(&["0", "1", "2"])),
            ("SUCCESS):1", "SUCCESS):1", Some(&[])),
            ("SUCCESS):1", "SUCCESS):0", None),
        ] {
            let read = pattern(text).read(line);
            assert_eq!(read, expected.map(|values| values.iter().map(|value| (*value).to_owned()).collect()), "{line}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_or_malformed_is_refused() {
        let list = pattern("X{values}");
        for line in ["X(0-4294967295)", "X(3-1)", "X(1-x)", "X(,)", "X()", "X(0-1000,0-1000)", "X(0", "X1-2-3", "X-"] {
            assert_eq!(list.read(line), None, "{line}");
        }
    }

    #[test]
    fn an_ambiguous_or_malformed_pattern_is_refused() {
        for text in ["{value}{*}", "{value},{value}", "{value},{values}", "({values})", "{nothing}", "{value", "{"] {
            assert!(Pattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
