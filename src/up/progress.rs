//! What a person sees while a swarm starts: one line a member, live on a terminal, plain elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

pub struct Progress {
    bars: MultiProgress,
    lines: HashMap<String, ProgressBar>,
    live: bool,
    width: usize,
}

impl Progress {
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        let names: Vec<String> = names.collect();
        let live = std::io::stderr().is_terminal();
        let mut progress = Self {
            bars: MultiProgress::new(),
            lines: HashMap::new(),
            live,
            width: names.iter().map(String::len).max().unwrap_or_default(),
        };
        for name in names {
            if live {
                let bar = progress.bars.add(ProgressBar::new_spinner());
                bar.set_style(
                    ProgressStyle::with_template("{spinner:.cyan} {prefix} {msg:.dim}")
                        .expect("the template is well-formed"),
                );
                bar.set_prefix(format!("{name:width$}", width = progress.width));
                bar.set_message("waiting");
                progress.lines.insert(name, bar);
            }
        }
        progress
    }

    /// What a member is doing now.
    pub fn doing(&self, name: &str, what: &str) {
        match self.lines.get(name) {
            Some(bar) => {
                bar.enable_steady_tick(TICK);
                bar.set_message(what.to_owned());
            }
            None => eprintln!("{name:width$}  {what}", width = self.width),
        }
    }

    /// A member is where it should be.
    pub fn done(&self, name: &str, what: &str) {
        match self.lines.get(name) {
            Some(bar) => {
                let style = ProgressStyle::with_template("\u{1b}[32m✔\u{1b}[0m {prefix} {msg}")
                    .expect("the template is well-formed");
                bar.set_style(style);
                bar.finish_with_message(what.to_owned());
            }
            None => eprintln!("{name:width$}  {what}", width = self.width),
        }
    }

    /// Nothing more is coming: what follows is printed below.
    pub fn finish(&self) {
        if self.live {
            for bar in self.lines.values().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
        }
    }
}
