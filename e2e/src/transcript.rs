//! Transcripts: command lines with what they print, as a person reads them in a terminal.
//!
//! A file of them is a test and its documentation. `$ ` begins a command and `> ` continues it, `# `
//! is a comment, everything else is what the command before printed; `[exit 1]` ends what failed.
//! What differs from run to run (ids, times, ages) is replaced before it is compared or written.

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use regex::Regex;
use tokio::process::Command;

/// Set to write what was printed into the files instead of comparing it.
pub const BLESS: &str = "HIVE_BLESS";

/// For one command, on the slowest machine that builds this in debug.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, PartialEq)]
enum Part {
    Comment(String),
    Command { line: String, printed: String },
}

/// A file's comments and commands, in order.
#[derive(Debug, PartialEq)]
pub struct Transcript(Vec<Part>);

/// What a transcript's commands see.
#[derive(Debug)]
pub struct Terminal<'a> {
    pub directory: &'a Path,
    pub variables: Vec<(&'static str, String)>,
}

/// What is compared: all of it, or only which commands succeed (for a program of another version,
/// which says the same in other words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Everything,
    Success,
}

impl Transcript {
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                parts.push(Part::Comment(comment.to_owned()));
            } else if let Some(command) = line.strip_prefix("$ ") {
                parts.push(Part::Command {
                    line: command.to_owned(),
                    printed: String::new(),
                });
            } else if let Some(Part::Command { line: own, printed }) = parts.last_mut() {
                match line.strip_prefix("> ") {
                    Some(more) if printed.is_empty() => {
                        own.push('\n');
                        own.push_str(more);
                    }
                    _ => {
                        printed.push_str(line);
                        printed.push('\n');
                    }
                }
            }
        }
        for part in &mut parts {
            if let Part::Command { printed, .. } = part {
                *printed = trimmed(printed);
            }
        }
        Self(parts)
    }

    /// Runs all commands; what they print now, in the place of what they printed.
    pub async fn run(&self, terminal: &Terminal<'_>, replace: &Replacements) -> Self {
        let mut parts = Vec::new();
        for part in &self.0 {
            parts.push(match part {
                Part::Comment(comment) => Part::Comment(comment.clone()),
                Part::Command { line, .. } => Part::Command {
                    line: line.clone(),
                    printed: trimmed(&replace.apply(&terminal.run(line).await)),
                },
            });
        }
        Self(parts)
    }

    /// How another run of the same commands differs; empty if it does not.
    pub fn differences(&self, now: &Self, compare: Compare) -> String {
        let mut told = String::new();
        for (before, now) in self.0.iter().zip(&now.0) {
            let (Part::Command { line, printed }, Part::Command { printed: now, .. }) =
                (before, now)
            else {
                continue;
            };
            let same = match compare {
                Compare::Everything => printed == now,
                Compare::Success => failed(printed) == failed(now),
            };
            if !same {
                let _ = write!(
                    told,
                    "$ {line}\n--- expected\n{printed}--- printed\n{now}\n"
                );
            }
        }
        told
    }
}

/// As it is written in a file.
impl std::fmt::Display for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut commented = true;
        for (index, part) in self.0.iter().enumerate() {
            match part {
                Part::Comment(comment) => {
                    if index > 0 && !commented {
                        writeln!(f)?;
                    }
                    writeln!(f, "# {comment}")?;
                    commented = true;
                }
                Part::Command { line, printed } => {
                    writeln!(f, "$ {}", line.replace('\n', "\n> "))?;
                    f.write_str(printed)?;
                    commented = false;
                }
            }
        }
        Ok(())
    }
}

impl Terminal<'_> {
    /// Standard output and errors, mixed as a terminal shows them, and the exit code unless it is 0.
    async fn run(&self, line: &str) -> String {
        let mut command = Command::new("bash");
        // Both go where a terminal would show them.
        command
            .args(["-c", &format!("exec 2>&1\n{line}")])
            .current_dir(self.directory)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let running = async { command.spawn()?.wait_with_output().await };
        let Ok(output) = tokio::time::timeout(PATIENCE, running).await else {
            return format!("[did not end within {PATIENCE:?}]\n");
        };
        let output = output.expect("bash can be started");
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            if !printed.is_empty() && !printed.ends_with('\n') {
                printed.push('\n');
            }
            let code = output.status.code().unwrap_or(-1);
            let _ = writeln!(printed, "[exit {code}]");
        }
        printed
    }
}

fn failed(printed: &str) -> bool {
    printed
        .lines()
        .any(|line| line.starts_with("[exit ") || line.starts_with("[did not end"))
}

/// Without blank lines at the end, which nobody sees in a file, or spaces at a line's end.
fn trimmed(text: &str) -> String {
    let mut out: String = text
        .trim_end()
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect();
    if out == "\n" {
        out.clear();
    }
    out
}

/// What stands for that which differs from run to run.
#[derive(Debug)]
pub struct Replacements {
    texts: Vec<(String, String)>,
    patterns: Vec<(Regex, &'static str)>,
}

/// In this order: an id is not to be read as a number of something.
const PATTERNS: [(&str, &str); 11] = [
    (
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "UUID",
    ),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "TIME"),
    (
        r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+\d{4}",
        "TIME",
    ),
    (r#"(?i)(resource ?version"?: +)"?\d+"?"#, "${1}REVISION"),
    (r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b", "AGE"),
    // A column is as wide as the longest age in it.
    (r"\bAGE {2,}", "AGE   "),
    (r"\bmade-[a-z0-9]{5}\b", "made-SUFFIX"),
    (r"\b127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\blocalhost:\d+", "localhost:PORT"),
    (r"/tmp/[^ \x22:]*", "TEMPORARY"),
];

impl Replacements {
    pub fn new(texts: Vec<(String, String)>) -> Self {
        let compiled = |(pattern, with)| (Regex::new(pattern).expect("it is well-formed"), with);
        Self {
            texts,
            patterns: PATTERNS.into_iter().map(compiled).collect(),
        }
    }

    fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.texts {
            text = text.replace(from, to);
        }
        for (pattern, with) in &self.patterns {
            text = pattern.replace_all(&text, *with).into_owned();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Reading.\n$ one\nprinted\n\nmore\n$ two <<'Y'\n> a: 1\n> Y\n[exit 1]\n\n# Writing.\n$ three\n";

    #[test]
    fn files_are_read_and_written_alike() {
        let transcript = Transcript::parse(FILE);
        assert_eq!(transcript.to_string(), FILE);
        assert_eq!(transcript.differences(&transcript, Compare::Everything), "");
    }

    #[test]
    fn other_words_are_a_difference_and_the_same_success() {
        let transcript = Transcript::parse(FILE);
        let other = Transcript::parse(&FILE.replace("printed", "told"));
        assert!(
            transcript
                .differences(&other, Compare::Everything)
                .contains("told")
        );
        assert_eq!(transcript.differences(&other, Compare::Success), "");
        let other = Transcript::parse(&FILE.replace("[exit 1]\n", ""));
        assert!(
            transcript
                .differences(&other, Compare::Success)
                .contains("two")
        );
    }

    #[test]
    fn what_differs_from_run_to_run_is_replaced() {
        let replace = Replacements::new(vec![("node-7".into(), "NODE".into())]);
        let text = "node-7 3m2s 2026-11-21T11:44:55Z resourceVersion: \"38\"\n";
        assert_eq!(
            replace.apply(text),
            "NODE AGE TIME resourceVersion: REVISION\n"
        );
    }

    #[tokio::test]
    async fn a_command_s_output_errors_and_code_are_seen() {
        let directory = tempfile::tempdir().expect("it can be made");
        let terminal = Terminal {
            directory: directory.path(),
            variables: vec![("GREETING", "hello".to_owned())],
        };
        let printed = terminal.run("echo $GREETING; echo oh >&2; false").await;
        assert_eq!(printed, "hello\noh\n[exit 1]\n");
    }
}
