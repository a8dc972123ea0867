//! Columns of text, laid out as kubectl's printer does.
//!
//! The server's `Table` objects (or rows that a command makes itself) flow in, lines flow out.
//! Widths are remembered, so that the lines of a watch stay under their headers.

use serde_json::Value;

/// Blanks between two columns.
const PADDING: usize = 3;
/// The least width of a column, padding included: kubectl's, so that its users' eyes find things.
const MIN_WIDTH: usize = 6;

/// Lays out rows under remembered widths.
#[derive(Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// The lines of `rows`. Columns grow to their widest cell seen so far; the last is not padded.
    pub fn lay_out(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                let width = (cell.chars().count() + PADDING).max(MIN_WIDTH);
                match self.widths.get_mut(index) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < row.len() {
                    let blanks = self.widths[index].saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

/// Lays out headers and rows once.
pub fn simple(headers: &[&str], rows: Vec<Vec<String>>, with_headers: bool) -> String {
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if with_headers {
        lines.push(headers.iter().map(|header| (*header).to_owned()).collect());
    }
    lines.extend(rows);
    Columns::default().lay_out(&lines)
}

/// Which columns to show besides the server's.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableStyle<'a> {
    pub wide: bool,
    pub namespace: bool,
    pub labels: bool,
    /// `function.hive.dev/`: put before names when several resources are printed.
    pub name_prefix: &'a str,
}

/// The headers of a server's Table, in capitals.
pub fn headers(table: &Value, style: TableStyle) -> Vec<String> {
    let mut headers: Vec<String> = shown_columns(table, style.wide)
        .into_iter()
        .map(|index| {
            table["columnDefinitions"][index]["name"]
                .as_str()
                .unwrap_or_default()
                .to_uppercase()
        })
        .collect();
    if style.namespace {
        headers.insert(0, "NAMESPACE".into());
    }
    if style.labels {
        headers.push("LABELS".into());
    }
    headers
}

/// The rows of a server's Table as text cells.
pub fn rows(table: &Value, columns_of: &Value, style: TableStyle) -> Vec<Vec<String>> {
    let shown = shown_columns(columns_of, style.wide);
    let name_column = columns_of["columnDefinitions"]
        .as_array()
        .and_then(|columns| {
            columns.iter().position(|column| {
                column["format"] == "name"
                    || column["name"]
                        .as_str()
                        .is_some_and(|name| name.eq_ignore_ascii_case("name"))
            })
        });
    table["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let mut cells: Vec<String> = shown
                .iter()
                .map(|index| {
                    let text = cell_text(&row["cells"][*index]);
                    if Some(*index) == name_column {
                        format!("{}{text}", style.name_prefix)
                    } else {
                        text
                    }
                })
                .collect();
            let metadata = &row["object"]["metadata"];
            if style.namespace {
                cells.insert(0, cell_text(&metadata["namespace"]));
            }
            if style.labels {
                cells.push(labels_text(&metadata["labels"]));
            }
            cells
        })
        .collect()
}

/// Indices of the columns shown: those of priority 0, and with `-o wide` all.
fn shown_columns(table: &Value, wide: bool) -> Vec<usize> {
    table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(index, _)| index)
        .collect()
}

/// One cell. Only the first line of a text is shown, and control characters that could move a
/// terminal's cursor are shown as escapes: an event's message is not to be trusted.
pub fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".into(),
        Value::String(text) => match text.split_once('\n') {
            Some((first, _)) => format!("{}...", harmless(first)),
            None => harmless(text),
        },
        other => other.to_string(),
    }
}

/// The text with control characters escaped.
pub fn harmless(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
            if c.is_control() && c != '\t' {
                Box::new(c.escape_default())
            } else {
                Box::new(std::iter::once(c))
            }
        })
        .collect()
}

pub fn labels_text(labels: &Value) -> String {
    match labels.as_object() {
        Some(labels) if !labels.is_empty() => labels
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(","),
        _ => "<none>".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "format": "name", "priority": 0},
                {"name": "Ready", "priority": 0},
                {"name": "Artifact", "priority": 1},
                {"name": "Age", "priority": 0},
            ],
            "rows": [
                {"cells": ["hello", "2/3", "sha256:12", "5m12s"],
                 "object": {"metadata": {"namespace": "default", "labels": {"app": "x", "tier": "web"}}}},
                {"cells": ["a-much-longer-name", null, "", "3d4h"],
                 "object": {"metadata": {"namespace": "prod"}}},
            ]
        })
    }

    fn print(style: TableStyle) -> String {
        let table = table();
        let mut lines = vec![headers(&table, style)];
        lines.extend(rows(&table, &table, style));
        Columns::default().lay_out(&lines)
    }

    #[test]
    fn a_table_reads_as_kubectls() {
        assert_eq!(
            print(TableStyle::default()),
            "NAME                 READY    AGE\n\
             hello                2/3      5m12s\n\
             a-much-longer-name   <none>   3d4h\n"
        );
    }

    #[test]
    fn wide_namespaces_labels_and_prefix_add_to_it() {
        let style = TableStyle {
            wide: true,
            namespace: true,
            labels: true,
            name_prefix: "function.hive.dev/",
        };
        assert_eq!(
            print(style),
            "NAMESPACE   NAME                                   READY    ARTIFACT    AGE     LABELS\n\
             default     function.hive.dev/hello                2/3      sha256:12   5m12s   app=x,tier=web\n\
             prod        function.hive.dev/a-much-longer-name   <none>               3d4h    <none>\n"
        );
    }

    #[test]
    fn later_rows_stay_under_their_headers() {
        let mut columns = Columns::default();
        columns.lay_out(&[
            vec!["NAME".into(), "AGE".into()],
            vec!["hello-world".into(), "1s".into()],
        ]);
        assert_eq!(
            columns.lay_out(&[vec!["x".into(), "2s".into()]]),
            "x             2s\n"
        );
    }

    #[test]
    fn cells_cannot_move_the_cursor() {
        assert_eq!(cell_text(&json!("a\x1b[2Jb")), "a\\u{1b}[2Jb");
        assert_eq!(cell_text(&json!("first\nsecond")), "first...");
        assert_eq!(cell_text(&json!(3)), "3");
    }
}
