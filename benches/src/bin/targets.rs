//! The budgets of the crate, and whether they are met. `--no-servers` omits the memory.

use std::{
    env,
    fmt::{self, Display},
    time::{Duration, Instant},
};

use benches::{
    Case, Result, case_named,
    handshake::{ALONE, CALLBACK, MORE, ROUTE, SERVICE},
    measure::{Program, each},
    ordinary, rejection,
    server::{self, peer},
};

/// Native instructions and allocations of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    instructions: i64,
    allocations: i64,
}

impl Cost {
    fn minus(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            allocations: self.allocations - other.allocations,
        }
    }

    fn fits(self, budget: Self) -> bool {
        self.instructions <= budget.instructions && self.allocations <= budget.allocations
    }
}

impl Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.instructions, self.allocations)
    }
}

type Name = (&'static str, &'static str);

enum Of {
    Case(Name),
    /// What the case costs more than this one.
    MoreThan(Name, Name),
    /// What the features `tracing` and `metrics` add.
    Observed(Name),
}

enum Budget {
    Is(i64, i64),
    /// As this case at most.
    As(Name),
}

struct Target {
    what: &'static str,
    of: Of,
    budget: Budget,
    beside: &'static [Name],
}

const BARE: Name = (ordinary::SERVICE, "the service alone");
const RESPONDS: Name = (SERVICE, "`GuardLayer` that responds, accepted by the service");
const FROM_FN: Name = (ROUTE, "axum, origin checked in a `from_fn` on the route");

const TARGETS: &[Target] = &[
    Target {
        what: "ordinary request, on top of the service",
        of: Of::MoreThan((ordinary::SERVICE, "`GuardLayer`"), BARE),
        budget: Budget::Is(200, 0),
        beside: &[
            BARE,
            (ordinary::SERVICE, "a layer that does nothing"),
            (ordinary::SERVICE, "tower's `MapResponseLayer` that does nothing"),
            (
                ordinary::SERVICE,
                "tower-http's `ValidateRequestHeaderLayer` that looks at one header",
            ),
            (ordinary::SERVICE, "tower-http's `CorsLayer`"),
        ],
    },
    Target {
        what: "ordinary request, four separate layers, on top of the service",
        of: Of::MoreThan((ordinary::SERVICE, "four separate layers instead of `GuardLayer`"), BARE),
        budget: Budget::Is(700, 0),
        beside: &[
            (ordinary::SERVICE, "four layers that do nothing"),
            (ordinary::SERVICE, "four of tower's `MapResponseLayer` that do nothing"),
        ],
    },
    Target {
        what: "rejection of a foreign origin",
        of: Of::Case((rejection::ORIGIN, "`GuardLayer`")),
        budget: Budget::Is(3700, 5),
        beside: &[(rejection::ORIGIN, "floor, written by hand")],
    },
    Target {
        what: "the same, on an axum route",
        of: Of::Case((rejection::ORIGIN, "`GuardLayer` on an axum route")),
        budget: Budget::As((rejection::ORIGIN, "axum, in a `from_fn` on the route")),
        beside: &[(rejection::ORIGIN, "axum, in the handler")],
    },
    Target {
        what: "guard alone, accepted",
        of: Of::Case((ALONE, "one exact origin")),
        budget: Budget::Is(3500, 0),
        beside: &[(SERVICE, "nothing: an empty 101 (drops request and response)")],
    },
    Target {
        what: "guard that responds, accepted by the service",
        of: Of::Case(RESPONDS),
        budget: Budget::Is(5900, 4),
        beside: &[
            (SERVICE, "floor, written by hand"),
            (SERVICE, "fastwebsockets, `upgrade`"),
            (SERVICE, "fastwebsockets, `is_upgrade_request` and `upgrade`"),
            (SERVICE, "hyper-tungstenite, `upgrade`"),
            (SERVICE, "hyper-tungstenite, `is_upgrade_request` and `upgrade`"),
        ],
    },
    Target {
        what: "the same with bearer token and subprotocol",
        of: Of::Case((MORE, "`GuardLayer` that responds, bearer token")),
        budget: Budget::Is(9000, 6),
        beside: &[],
    },
    Target {
        what: "guard with a callback, around an axum router",
        of: Of::Case((CALLBACK, "`GuardLayer` with a callback")),
        budget: Budget::Is(9500, 5),
        beside: &[
            (CALLBACK, "floor, written by hand"),
            (CALLBACK, "fastwebsockets, `upgrade`, in a service written by hand"),
        ],
    },
    Target {
        what: "guard on the route, handler takes axum's `WebSocketUpgrade`",
        of: Of::Case((ROUTE, "`GuardLayer` on the route, axum's `WebSocketUpgrade`")),
        budget: Budget::As(FROM_FN),
        beside: &[(ROUTE, "axum's `WebSocketUpgrade`")],
    },
    Target {
        what: "guard that responds on the route, accepted by the handler",
        of: Of::Case((ROUTE, "`GuardLayer` that responds on the route, accepted by the handler")),
        budget: Budget::As(FROM_FN),
        beside: &[],
    },
    Target {
        what: "`tracing` and `metrics` compiled in, nobody listens: handshake",
        of: Of::Observed(RESPONDS),
        budget: Budget::Is(300, 0),
        beside: &[],
    },
    Target {
        what: "`tracing` and `metrics` compiled in, nobody listens: rejection",
        of: Of::Observed((rejection::ORIGIN, "`GuardLayer`")),
        budget: Budget::Is(300, 0),
        beside: &[],
    },
    Target {
        what: "`tracing` and `metrics` compiled in, nobody listens: ordinary request",
        of: Of::Observed((ordinary::SERVICE, "`GuardLayer`")),
        budget: Budget::Is(300, 0),
        beside: &[],
    },
];

impl Target {
    fn names(&self) -> Vec<Name> {
        let mut names = self.beside.to_vec();
        match self.of {
            Of::Case(case) | Of::Observed(case) => names.push(case),
            Of::MoreThan(case, base) => names.extend([case, base]),
        }
        if let Budget::As(case) = self.budget {
            names.push(case);
        }
        names
    }
}

/// The costs of cases in one program.
struct Costs(Vec<(Case, Cost)>);

impl Costs {
    fn measure(program: Program, names: impl IntoIterator<Item = Name>) -> Result<Self> {
        let mut names = names.into_iter().collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        let cases = names.into_iter().map(|(group, name)| case_named(group, name));
        let cases = cases.collect::<Vec<_>>();
        program.build()?;
        let costs = each(&cases, |case| {
            let instructions = program.instructions(case)?.ok_or_else(|| case.id())?;
            let allocations = program.allocations(case)?.count;
            Ok(Cost {
                instructions: instructions.cast_signed(),
                allocations: allocations.cast_signed(),
            })
        })?;
        Ok(Self(cases.into_iter().zip(costs).collect()))
    }

    fn of(&self, (group, name): Name) -> Cost {
        let is_it = |case: &Case| (case.group, case.name) == (group, name);
        self.0.iter().find(|(case, _)| is_it(case)).expect("measured").1
    }
}

fn row(what: &str, figure: impl Display, target: impl Display, is_met: bool, beside: &str) {
    let met = if is_met { "yes" } else { "**no**" };
    println!("| {what} | {figure} | {target} | {met} | {beside} |");
}

fn instructions() -> Result<()> {
    let observed = TARGETS.iter().filter_map(|target| match target.of {
        Of::Observed(case) => Some(case),
        Of::Case(_) | Of::MoreThan(..) => None,
    });
    let observed = Costs::measure(Program::Observed, observed)?;
    let plain = Costs::measure(Program::Plain, TARGETS.iter().flat_map(Target::names))?;
    for Target { what, of, budget, beside } in TARGETS {
        let cost = match *of {
            Of::Case(case) => plain.of(case),
            Of::MoreThan(case, base) => plain.of(case).minus(plain.of(base)),
            Of::Observed(case) => observed.of(case).minus(plain.of(case)),
        };
        let (budget, target) = match *budget {
            Budget::Is(instructions, allocations) => {
                let budget = Cost { instructions, allocations };
                (budget, budget.to_string())
            }
            Budget::As(case) => (plain.of(case), format!("{}: {}", plain.of(case), case.1)),
        };
        let beside = beside.iter().map(|case| match *of {
            Of::MoreThan(_, base) if *case != base => {
                format!("{}: +{}", case.1, plain.of(*case).minus(plain.of(base)))
            }
            _ => format!("{}: {}", case.1, plain.of(*case)),
        });
        row(what, cost, target, cost.fits(budget), &beside.collect::<Vec<_>>().join("; "));
    }
    Ok(())
}

/// How much longer than the first case the second one takes, in percent: the median of rounds in
/// which both run.
fn longer(name: &'static str) -> f64 {
    const ROUNDS: usize = 2001;
    const BATCH: usize = 64;
    let mut operations = ["one exact origin, claimed by the service", name]
        .map(|name| case_named(ALONE, name).operation());
    let mut ratios = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let [base, more] = operations.each_mut().map(|operation| {
            operation.prepare(BATCH);
            let start = Instant::now();
            operation.run();
            start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
        });
        ratios.push(more / base);
    }
    ratios.sort_by(f64::total_cmp);
    (ratios[ROUNDS / 2] - 1.0) * 100.0
}

fn time() {
    for name in ["with a limit", "with a drain"] {
        let percent = longer(name);
        row(
            &format!("guard alone {name}: time on top of one without"),
            format!("{percent:.0} %"),
            "30 %",
            percent <= 30.0,
            "",
        );
    }
}

async fn memory() -> Result<()> {
    server::build()?;
    server::many_files()?;
    for (what, name, budget) in [
        ("handler accepts", "hyper-guard", 1000),
        ("`on_upgraded`", "hyper-callback", 1000),
        ("limit and drain, `ended()` raced", "hyper-limit-drain", 1300),
    ] {
        let bytes = server::idle(&peer(name)?).await?.bytes;
        let floor = server::idle(&peer("hyper-floor")?).await?.bytes;
        let beside = format!("floor, written by hand: {floor}");
        row(
            &format!("idle connection, no codec, {what}: bytes resident"),
            bytes,
            budget,
            bytes <= budget,
            &beside,
        );
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    println!("Instructions are native, allocations in brackets.\n");
    println!("| what | now | target | met | beside |\n|---|--:|--:|---|---|");
    instructions()?;
    time();
    match env::args().any(|argument| argument == "--no-servers") {
        true => Ok(()),
        false => memory().await,
    }
}
