#![allow(clippy::unwrap_used)]

use super::*;

#[global_allocator]
static COUNTING: Counting = Counting;

fn found(target: Target<'_>) -> String {
    let settings = Settings {
        run: Run::Times(50_000),
        seed: 1,
        corpus: None,
    };
    let hunted = quiet::caught(|| target.hunt(&settings));
    hunted.err().expect("the fault is found")
}

#[test]
fn a_panic_behind_a_few_checks_is_found_and_made_small() {
    let said = found(
        Target::new("panics", |input: &[u8]| match input {
            [b'a', b'b', ..] if input.contains(&b'\\') => panic!("an escape"),
            [b'a', ..] => Ok(()),
            _ => Err("no a"),
        })
        .seeds(["abc"]),
    );
    assert!(said.contains("an escape"), "{said}");
    assert!(said.contains(r"3 bytes: ab\\"), "{said}");
}

#[test]
fn time_and_memory_without_bound_are_found() {
    let said = found(Target::new("hungry", |input: &[u8]| {
        let announced = input.first().copied().unwrap_or(0);
        std::hint::black_box(vec![0_u8; usize::from(announced) << 20]);
        Ok::<_, String>(())
    }));
    assert!(said.contains("bytes of memory"), "{said}");
    let mut slow = Target::new("slow", |input: &[u8]| {
        let mut rounds: u64 = 0;
        for a in input {
            for b in input {
                rounds = std::hint::black_box(rounds + u64::from(a ^ b));
            }
        }
        Ok::<_, String>(())
    })
    .seeds([[7; 128]]);
    slow.budget.time = std::time::Duration::from_millis(100);
    let said = found(slow);
    assert!(said.contains("of the processor"), "{said}");
}

#[test]
fn what_is_behind_a_checksum_is_reached_when_inputs_are_repaired() {
    fn sum(bytes: &[u8]) -> u8 {
        bytes
            .iter()
            .fold(0x5a, |sum, byte| sum.rotate_left(3) ^ byte)
    }
    let whole = |text: &[u8]| [&[sum(text)], text].concat();
    let said = found(
        Target::new("summed", |input: &[u8]| match input {
            [first, rest @ ..] if *first == sum(rest) => {
                assert!(!rest.contains(&0), "a zero inside");
                Ok(())
            }
            _ => Err("damaged"),
        })
        .seeds([whole(b"text")])
        .repaired(|input| {
            if let [first, rest @ ..] = &mut input[..] {
                *first = sum(rest);
            }
        }),
    );
    assert!(said.contains("a zero inside"), "{said}");
}

#[test]
fn a_seed_is_a_run() {
    let inputs = |seed| {
        let mut dice = Dice::from(seed);
        let pool = vec![b"some text, 12 words".to_vec()];
        let words = vec![b"word".to_vec()];
        let inputs = (0..500).map(|_| mutate::mutated(&mut dice, &pool, &words, 1_000));
        inputs.collect::<Vec<_>>()
    };
    assert_eq!(inputs(3), inputs(3));
    assert_ne!(inputs(3), inputs(4));
    assert!(inputs(5).iter().all(|input| input.len() <= 1_000));
}
