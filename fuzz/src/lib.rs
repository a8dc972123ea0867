//! Decoders run on damaged input: each says what it made of the bytes, and none may panic, nor take
//! more time or memory than its input is worth.
//!
//! A [`Target`] is a decoder with good inputs and the words they are made of; it lives in the crate
//! of its decoder, as a test. What runs is drawn from a seed, so a failure comes again. It must
//! never decide what a decoder accepts: targets assert that.

mod budget;
mod corpus;
mod coverage;
mod dice;
mod mutate;
mod quiet;
mod settings;
mod shrink;

use std::collections::BTreeSet;
use std::time::Instant;

pub use budget::Counting;

use budget::Budget;
use corpus::Corpus;
use coverage::Coverage;
use dice::Dice;
use settings::{Run, Settings};

/// What a decoder made of its input: took it, or refused it with a reason.
pub type Verdict = Result<(), String>;

/// The input of a decoder that reads text.
///
/// # Errors
/// Why it is none.
pub fn text(input: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(input).map_err(|error| error.to_string())
}

/// The longest input made here; a target may take less. Long enough for what grows with the square
/// of the input to be seen.
const INPUT_BYTES: usize = 64 * 1024;

/// Inputs kept to be changed further. More would each be looked at too seldom.
const POOL: usize = 4_096;

type Decoder<'a> = Box<dyn Fn(&[u8]) -> Verdict + 'a>;
type Repair<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

/// A decoder and what it takes.
pub struct Target<'a> {
    name: &'static str,
    run: Decoder<'a>,
    repair: Repair<'a>,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    input_bytes: usize,
    budget: Budget,
    /// How many of the usual runs are one of this target's.
    weight: u64,
}

impl<'a> Target<'a> {
    /// `run` decodes, and asserts what must hold of the result.
    pub fn new<E: ToString>(name: &'static str, run: impl Fn(&[u8]) -> Result<(), E> + 'a) -> Self {
        Self {
            name,
            run: Box::new(move |input| run(input).map_err(|error| error.to_string())),
            repair: Box::new(|_| {}),
            seeds: Vec::new(),
            words: Vec::new(),
            input_bytes: INPUT_BYTES,
            budget: Budget::default(),
            weight: 1,
        }
    }

    /// Good inputs.
    pub fn seeds<S: AsRef<[u8]>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        let seeds = seeds.into_iter().map(|seed| seed.as_ref().to_vec());
        self.seeds.extend(seeds);
        self
    }

    /// What inputs are made of, and where the decoder decides.
    pub fn words<S: AsRef<[u8]>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_vec());
        self.words.extend(words);
        self
    }

    /// Makes a damaged input look whole, so that what is behind checksums and lengths is reached.
    /// Every other input stays as it is.
    pub fn repaired(mut self, repair: impl Fn(&mut Vec<u8>) + 'a) -> Self {
        self.repair = Box::new(repair);
        self
    }

    /// Inputs end here, because something before the decoder ends them.
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.input_bytes = bytes;
        self
    }

    /// Memory that one input may cost; 64 MiB unless said.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.budget.memory = bytes;
        self
    }

    /// For a target that takes long for each input: only some of the usual runs.
    pub fn few(mut self) -> Self {
        self.weight = 20;
        self
    }

    /// Runs as many inputs as the environment says, or a few thousand.
    ///
    /// # Panics
    /// When one of them makes the decoder panic or exceeds its budget.
    pub fn hold(self) {
        let settings = Settings::from_environment();
        let report = self.hunt(&settings);
        println!("{}: {report}", self.name);
        if report.runs > 1 {
            // Else nothing behind the first check is ever reached.
            assert!(report.taken > 0, "{}: no input was taken", self.name);
        }
    }

    fn hunt(&self, settings: &Settings) -> Report {
        let corpus = Corpus::of(self.name, settings);
        let mut hunt = Hunt::default();
        if let Run::One(path) = &settings.run {
            let input = corpus::read(path);
            let verdict = hunt.meet(self, &corpus, &input);
            println!("{}: {verdict:?}", self.name);
            return hunt.report;
        }
        for seed in &self.seeds {
            if let Err(reason) = hunt.meet(self, &corpus, seed) {
                panic!(
                    "{}: a seed is refused: {reason}: {}",
                    self.name,
                    shown(seed)
                );
            }
        }
        for input in corpus.inputs() {
            let _ = hunt.meet(self, &corpus, &input);
        }
        let mut dice = Dice::from(settings.seed);
        let begun = Instant::now();
        let mut left = settings.runs().div_ceil(self.weight);
        while left > 0 && settings.goes_on(begun) {
            left -= 1;
            // What was taken is nearest to what else may be.
            let pool = match hunt.taken.is_empty() || dice.one_in(3) {
                true => &hunt.refused,
                false => &hunt.taken,
            };
            let mut input = mutate::mutated(&mut dice, pool, &self.words, self.input_bytes);
            if dice.one_in(2) {
                (self.repair)(&mut input);
            }
            input.truncate(self.input_bytes);
            let _ = hunt.meet(self, &corpus, &input);
        }
        hunt.report
    }

    /// The verdict, or why this is a finding.
    fn judge(&self, input: &[u8]) -> Result<Verdict, String> {
        let ran = self.budget.within(|| quiet::caught(|| (self.run)(input)));
        match ran {
            (Err(panic), _) => Err(panic),
            (Ok(_), Some(excess)) => Err(excess.to_string()),
            (Ok(verdict), None) => Ok(verdict),
        }
    }
}

/// Counted over all inputs of a run.
#[derive(Default)]
struct Report {
    runs: u64,
    taken: u64,
    refusals: usize,
    places: usize,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            runs,
            taken,
            refusals,
            places,
        } = self;
        write!(
            f,
            "{runs} inputs, {taken} taken, {refusals} kinds of refusal"
        )?;
        match places {
            0 => Ok(()),
            places => write!(f, ", {places} places reached"),
        }
    }
}

/// What was found interesting so far.
#[derive(Default)]
struct Hunt {
    taken: Vec<Vec<u8>>,
    refused: Vec<Vec<u8>>,
    coverage: Coverage,
    verdicts: BTreeSet<String>,
    taken_lengths: BTreeSet<u32>,
    report: Report,
}

impl Hunt {
    fn meet(&mut self, target: &Target, corpus: &Corpus, input: &[u8]) -> Verdict {
        corpus.about_to_run(input);
        self.coverage.begin();
        let judged = target.judge(input);
        let verdict = judged.unwrap_or_else(|what| {
            let least = shrink::least(input, |smaller| target.judge(smaller).is_err());
            let path = corpus.keep_finding(&least);
            panic!(
                "{}: {what}\ninput, {} bytes: {}\nagain: HIVE_FUZZ_INPUT={} with this test",
                target.name,
                least.len(),
                shown(&least),
                path.display()
            )
        });
        self.report.runs += 1;
        let news = match &verdict {
            Ok(()) => {
                self.report.taken += 1;
                // Something of another order of length, where nothing finer is known.
                self.taken_lengths
                    .insert(input.len().checked_ilog2().unwrap_or(0))
            }
            Err(reason) => self.verdicts.insert(kind(reason)),
        };
        self.report.refusals = self.verdicts.len();
        let reached = self.coverage.end();
        self.report.places = self.coverage.places();
        if news || reached {
            if reached {
                corpus.keep(input);
            }
            let pool = match verdict {
                Ok(()) => &mut self.taken,
                Err(_) => &mut self.refused,
            };
            pool.push(input.to_vec());
            if pool.len() > POOL {
                pool.swap_remove(self.report.runs as usize % POOL);
            }
        }
        verdict
    }
}

/// As much of an input as a person wants to see.
fn shown(input: &[u8]) -> String {
    const SHOWN: usize = 200;
    let start = input[..input.len().min(SHOWN)].escape_ascii();
    match input.len() > SHOWN {
        true => format!("{start}..."),
        false => start.to_string(),
    }
}

/// A reason without what it quotes of the input.
fn kind(reason: &str) -> String {
    let mut quoted = false;
    let own = reason.chars().filter(|c| {
        quoted ^= matches!(c, '"' | '`');
        !quoted && c.is_ascii_alphabetic()
    });
    own.take(60).collect()
}

#[cfg(test)]
mod tests;
