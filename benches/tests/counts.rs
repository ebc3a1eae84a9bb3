//! Callgrind counts the same for a row in each run, and nothing that is not the row's own.
#![allow(missing_docs)]

use std::time::Duration;

use theap_bench::row::{Budget, row};
use theap_bench::suite::{Entrant, Role, Side};

fn theap() -> Side {
    Side {
        entrant: Entrant {
            name: "theap".into(),
            role: Role::Subject,
            version: "1".into(),
        },
        program: env!("CARGO_BIN_EXE_contender-theap").into(),
        arguments: Vec::new(),
        environment: Vec::new(),
    }
}

/// The instructions, and the read-modify-writes, of an operation.
fn counted(name: &str, turns: u64) -> [f64; 2] {
    let metrics = theap().measure(row(name).unwrap(), Budget::Turns(turns));
    let metrics = metrics.unwrap();
    ["instructions", "read_modify_writes"].map(|name| {
        let mut found = metrics.iter().filter(|metric| metric.metric == name);
        found.next().unwrap().value
    })
}

/// The start of the program takes millions of instructions, and none of them is an operation's: so
/// the figure does not depend on the number of turns. A pair that hits has no read-modify-write.
#[test]
fn counts_are_those_of_an_operation() {
    let (few, many) = (counted("burst/1x64", 2), counted("burst/1x64", 6));
    assert!(few[0] > 10.0 && few[1] < 0.01, "{few:?}");
    assert!((few[0] / many[0] - 1.0).abs() < 0.02, "{few:?} {many:?}");
}

#[test]
fn rows_of_several_threads_are_not_counted() {
    let error = theap().measure(row("larson/2").unwrap(), Budget::Turns(2));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("as many as fit in a time"), "{error}");
}

#[test]
fn budgets_survive_the_way_to_the_child() {
    let written = [Budget::Turns(16), Budget::Time(Duration::from_millis(200))];
    assert_eq!(written.map(|budget| budget.to_string()), ["16x", "200"]);
    assert!(matches!("16x".parse(), Ok(Budget::Turns(16))));
    assert!(matches!("200".parse(), Ok(Budget::Time(time)) if time.as_millis() == 200));
    assert!("x".parse::<Budget>().is_err());
}
