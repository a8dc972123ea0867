//! What was aimed at, and what was measured: the table at the end of a run.

#[derive(Default)]
pub struct Aims(Vec<(String, String, String, bool)>);

impl Aims {
    /// `figure` must be at least `aim`.
    pub fn at_least(&mut self, what: &str, figure: f64, aim: f64, unit: &str) {
        self.add(what, figure, ">=", aim, unit, figure >= aim);
    }

    pub fn at_most(&mut self, what: &str, figure: f64, aim: f64, unit: &str) {
        self.add(what, figure, "<=", aim, unit, figure <= aim);
    }

    fn add(&mut self, what: &str, figure: f64, sign: &str, aim: f64, unit: &str, met: bool) {
        self.0.push((
            what.to_owned(),
            format!("{figure:.2}{unit}"),
            format!("{sign} {aim}{unit}"),
            met,
        ));
    }

    pub fn print(&self) {
        println!("\n| what | measured | aim | |\n|---|---|---|---|");
        for (what, measured, aim, met) in &self.0 {
            let met = if *met { "met" } else { "**missed**" };
            println!("| {what} | {measured} | {aim} | {met} |");
        }
    }
}
