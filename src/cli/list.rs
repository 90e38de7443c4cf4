//! Lists of ranges in files, as the world publishes them.
//!
//! Lists have comments, counts behind the ranges, byte order marks, columns with names in them. One principle
//! goes through all of it: no address is dropped in silence. What stands behind a range and is neither a
//! number nor a comment makes the line bad, because a second address that is passed over stays free. Only
//! from a CSV line, whose range is in front, are the further columns left unread.
//!
//! Nothing is sorted or merged, and ranges may overlap: the fold has no trouble with that, and a line keeps
//! its number for whoever asks. There are no files here, only bytes, so that tests need none.

use clap::ValueEnum;

use crate::address::{Range, RangeError};
use crate::cli::failure::shown;

/// How the lines of a list are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ListFormat {
    /// csv if the first line with data has a comma, else lines.
    Auto,
    /// A range begins a line, with or without blanks around its dash; behind it only numbers may stand. # and
    /// ; begin a comment.
    Lines,
    /// Start and end are the first two fields of a line, or the range is the first one.
    Csv,
}

/// A range with the number of its line, for complaints that come after parsing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListedRange {
    /// The line, from 1.
    pub line: usize,
    /// The range.
    pub range: Range,
}

/// A line that holds no range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what was probably meant.
    pub reason: String,
}

/// All that a list holds, in its order. It may hold nothing, which is no error here.
///
/// ```
/// use portcullis::cli::list::{List, ListFormat};
///
/// let text = b"# bots\n203.0.113.0/24 17\n\n2001:db8::7 ; one\n203.0.113.9/24\n";
/// let list = List::parse(text, ListFormat::Auto);
/// let ranges: Vec<String> = list.ranges.iter().map(|listed| listed.range.to_string()).collect();
/// assert_eq!(ranges, ["203.0.113.0/24", "2001:db8::7"]);
/// assert_eq!(list.bad[0].line, 5);
/// assert_eq!(list.bad[0].reason, "203.0.113.9/24 has host bits set; did you mean 203.0.113.0/24?");
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct List {
    /// The ranges.
    pub ranges: Vec<ListedRange>,
    /// The lines that hold none.
    pub bad: Vec<BadLine>,
}

impl List {
    /// Reads a whole list. Blank lines and comments hold nothing; a byte order mark and CRLF are accepted.
    /// There is no error: a line that can't be read is one of the bad ones, and the others are read all the
    /// same.
    pub fn parse(bytes: &[u8], format: ListFormat) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let format = match format {
            ListFormat::Auto => guess(bytes),
            format => format,
        };
        let mut list = Self::default();
        for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            match parse_line(bytes, format) {
                Ok(Some(range)) => list.ranges.push(ListedRange { line, range }),
                Ok(None) => {}
                Err(_) if line == 1 && format == ListFormat::Csv && is_header(bytes) => {
                    let reason = "it names the columns; delete it, or leave it out with --skip-invalid";
                    list.bad.push(BadLine { line, reason: reason.to_owned() });
                }
                Err(reason) => list.bad.push(BadLine { line, reason }),
            }
        }
        list
    }
}

/// Whether a line that holds no range begins with a word that was never meant as an address.
fn is_header(line: &[u8]) -> bool {
    let first = line.split(|byte| *byte == b',').next().unwrap_or_default();
    let word = |byte: &u8| byte.is_ascii_alphabetic() || b" _\"".contains(byte);
    !first.trim_ascii().is_empty() && first.iter().all(word)
}

/// Judges by the first line with data; one that is not UTF-8 is data, and wrong in either format.
fn guess(bytes: &[u8]) -> ListFormat {
    let lines = bytes.split(|byte| *byte == b'\n');
    let first =
        lines.map(|line| without_comment(str::from_utf8(line).unwrap_or("?"))).find(|data| !data.is_empty());
    if first.is_some_and(|data| data.contains(',')) { ListFormat::Csv } else { ListFormat::Lines }
}

/// The range on a line; none on one that holds nothing. The error is the reason that people are told.
fn parse_line(bytes: &[u8], format: ListFormat) -> Result<Option<Range>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    // Else what stands behind it would be lost: to a comment, or as the columns behind the range.
    if text.trim_end_matches('\r').contains('\r') {
        return Err("it holds a carriage return; end each line with a line feed".to_owned());
    }
    if without_comment(text).is_empty() {
        return Ok(None);
    }
    let range = match format {
        ListFormat::Csv => parse_csv(text),
        ListFormat::Lines | ListFormat::Auto => parse_words(without_comment(text)),
    };
    range.map(Some)
}

/// A range, and behind it nothing but the numbers that some lists have there.
fn parse_words(data: &str) -> Result<Range, String> {
    let words: Vec<&str> = data.split_ascii_whitespace().collect();
    // With blanks around its dash a range is up to three words; the words are joined again below.
    let of_range = match words.as_slice() {
        [_, "-", _, ..] => 3,
        [start, _, ..] if start.ends_with('-') => 2,
        [_, end, ..] if end.starts_with('-') => 2,
        _ => 1,
    };
    let (range, others) = words.split_at(of_range.min(words.len()));
    let range = range.concat().parse().map_err(|error| in_words(&error))?;
    match others.iter().find(|word| !word.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(word) => Err(format!("`{}` behind the range is neither a number nor a comment", shown(word))),
        None => Ok(range),
    }
}

/// What stands before a comment, without the blanks around it.
fn without_comment(line: &str) -> &str {
    line.split(['#', ';']).next().unwrap_or_default().trim_ascii()
}

/// The range of the first one or two fields. Only the first two commas count, because the names behind them
/// hold commas and quotes of their own.
fn parse_csv(line: &str) -> Result<Range, String> {
    let mut fields = line.splitn(3, ',').map(str::trim_ascii);
    let (start, end) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    if end.is_empty() {
        return start.parse().map_err(|error| in_words(&error));
    }
    if start.contains(['/', '-']) {
        return Err(format!("`{}` has an end already, so that `{}` can be none", shown(start), shown(end)));
    }
    format!("{start}-{end}").parse().map_err(|error| in_words(&error))
}

/// An error with its hint, for people: what is wrong, then what was probably meant.
pub fn in_words(error: &RangeError) -> String {
    format!("{error}; {}", error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8], format: ListFormat) -> (Vec<(usize, String)>, Vec<usize>) {
        let list = List::parse(text, format);
        let ranges = list.ranges.iter().map(|listed| (listed.line, listed.range.to_string()));
        (ranges.collect(), list.bad.iter().map(|bad| bad.line).collect())
    }

    fn ranges(text: &str, format: ListFormat) -> Vec<String> {
        let (ranges, bad) = parse(text.as_bytes(), format);
        assert!(bad.is_empty(), "{text}: {bad:?}");
        ranges.into_iter().map(|(_, range)| range).collect()
    }

    #[test]
    fn a_range_begins_a_line_and_only_numbers_and_comments_follow_it() {
        let text = "\u{feff}# comment, with a comma\r\n\r\n  1.2.3.4\t10 2\r\n1.2.3.0/24;comment\r\n \
                    \n2001:db8::-2001:db8::3#x\n;\n5.6.7.8 # a, b";
        let expected = ["1.2.3.4", "1.2.3.0/24", "2001:db8::/126", "5.6.7.8"];
        for format in [ListFormat::Auto, ListFormat::Lines] {
            assert_eq!(ranges(text, format), expected);
        }
        let text = "1.2.3.0 - 1.2.3.7\n1.2.3.0- 1.2.3.7 5\n1.2.3.0 -1.2.3.7 5 6 # x\r\r\n1.2.3.0-1.2.3.7";
        assert_eq!(ranges(text, ListFormat::Auto), ["1.2.3.0/29"; 4]);
        assert_eq!(parse(b"1.2.3.4\n\n5.6.7.8", ListFormat::Auto).0[1], (3, "5.6.7.8".to_owned()));
    }

    #[test]
    fn nothing_on_a_line_is_dropped() {
        for line in [
            "1.2.3.4 1.2.3.5",
            "1.2.3.4 5 1.2.3.5",
            "10.0.0.0 255.0.0.0",
            "1.2.3.4 x",
            "1.2.3.4 -",
            "1.2.3.4 - 1.2.3.5 - 1.2.3.6",
            "1.2.3.4 - 1.2.3.5 x",
            "1.2.3.4\r1.2.3.5",
            "1.2.3.4\r5",
            "# a list\r1.2.3.4\r1.2.3.5",
        ] {
            let expected = (vec![(2, "1.2.3.9".to_owned())], vec![1]);
            assert_eq!(parse(format!("{line}\n1.2.3.9").as_bytes(), ListFormat::Auto), expected, "{line:?}");
        }
        assert_eq!(parse(b"1.2.3.4,1.2.3.5\r1.2.3.6,1.2.3.7\r", ListFormat::Auto), (vec![], vec![1]));
    }

    #[test]
    fn a_line_that_names_the_columns_is_told_so() {
        let reason = |text: &str| List::parse(text.as_bytes(), ListFormat::Auto).bad[0].reason.clone();
        for text in ["start,end\n1.2.3.4,1.2.3.5", "\u{feff}\"First IP\",\"Last IP\",name\r\n"] {
            assert!(reason(text).starts_with("it names the columns; "), "{text}");
        }
        for text in ["1.2.3.4,1.2.3.5\nstart,end", "1.2.3.x,1.2.3.5", ",1.2.3.4"] {
            assert!(!reason(text).contains("columns"), "{text}");
        }
    }

    #[test]
    fn the_first_two_fields_of_a_line_count() {
        let text = "\u{feff}; comment\n1.2.3.0 ,\t1.2.3.255 ,\"Hosting, Inc.\",http://a/#b;c\r\n1.2.3.4\n\
                    1.2.3.0/24\n1.2.3.4,,name\n 2001:db8:: , 2001:db8::3\n# 1.2.3.4,1.2.3.5";
        let expected = ["1.2.3.0/24", "1.2.3.4", "1.2.3.0/24", "1.2.3.4", "2001:db8::/126"];
        for format in [ListFormat::Auto, ListFormat::Csv] {
            assert_eq!(ranges(text, format), expected);
        }
        assert_eq!(ranges("1.2.3.4\n1.2.3.5,1.2.3.6\n", ListFormat::Csv), ["1.2.3.4", "1.2.3.5-1.2.3.6"]);
    }

    #[test]
    fn a_bad_line_is_named_and_the_others_are_read() {
        let bad = |text: &[u8]| parse(text, ListFormat::Auto);
        assert_eq!(bad(b"1.2.3.4\nx\n1.2.3.5").1, [2]);
        assert_eq!(bad(b"1.2.3.4\n1.2.3.\xff\n1.2.3.5").1, [2]);
        assert_eq!(bad(b"\xff\n1.2.3.4,1.2.3.5").1, [1, 2], "nothing is guessed from what can't be read");
        assert_eq!(bad(b"start,end\n1.2.3.4,1.2.3.5").1, [1]);
        for line in [
            "1.2.3.4,x",
            "1.2.3.0/24,1.2.4.0",
            "1.2.3.9,1.2.3.1",
            ",1.2.3.4",
            "1.2.3.4,::1",
            "\"1.2.3.4\",1.2.3.5",
        ] {
            assert_eq!(bad(line.as_bytes()), (vec![], vec![1]), "{line}");
        }
        let reason = &List::parse(b"1.2.3.4/24", ListFormat::Auto).bad[0].reason;
        assert_eq!(reason, "1.2.3.4/24 has host bits set; did you mean 1.2.3.0/24?");
    }

    #[test]
    fn nothing_is_nothing() {
        for text in ["", "\n", "\u{feff}", "# only a comment", "\r\n\r\n;"] {
            assert_eq!(List::parse(text.as_bytes(), ListFormat::Auto), List::default(), "{text:?}");
        }
    }
}
