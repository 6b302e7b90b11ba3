//! A fault, and how it is written down between a test and the shim.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cryptoki_sys::CK_RV;

/// What happens in which calls of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub action: Action,
    /// Before the real module has the call, or after it carried it out.
    pub when: When,
    /// How many calls go through unharmed first.
    pub skip: u64,
    /// How many calls it then happens to.
    pub times: u64,
}

/// What happens in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing; the call is counted.
    Pass,
    /// The caller is told this.
    Return(CK_RV),
    /// It never comes back.
    Hang,
    /// It takes longer.
    Delay(Duration),
    /// The process ends by SIGABRT.
    Abort,
    /// The process ends by SIGSEGV.
    Segfault,
    /// One bit of what the real module gave is another.
    Garble,
}

/// Around a call of the real module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The real module does not have the call yet, and with [`Action::Return`] never gets it.
    Before,
    /// The real module has carried it out.
    After,
}

impl Fault {
    /// From now on, in every call.
    pub const fn always(action: Action) -> Self {
        Self { action, when: When::Before, skip: 0, times: u64::MAX }
    }

    /// In the next call alone.
    pub const fn once(action: Action) -> Self {
        Self { times: 1, ..Self::always(action) }
    }

    /// The same after the real module has carried the call out.
    pub const fn after(self) -> Self {
        Self { when: When::After, ..self }
    }

    /// The same from the call after the next `skip` ones.
    pub const fn skipping(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// Whether it happens in the `n`th call, from 1.
    pub(crate) fn strikes(&self, n: u64) -> bool {
        n > self.skip && n - self.skip <= self.times
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            When::Before => "before",
            When::After => "after",
        };
        write!(f, "{when} {} {} ", self.skip, self.times)?;
        match self.action {
            Action::Pass => f.write_str("pass"),
            Action::Return(code) => write!(f, "return {code}"),
            Action::Hang => f.write_str("hang"),
            Action::Delay(time) => write!(f, "delay {}", time.as_millis()),
            Action::Abort => f.write_str("abort"),
            Action::Segfault => f.write_str("segfault"),
            Action::Garble => f.write_str("garble"),
        }
    }
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (when, skip, times, action) = match words.as_slice() {
            [when, skip, times, action @ ..] => (*when, *skip, *times, action),
            _ => return Err(()),
        };
        let number = |word: &str| word.parse().map_err(drop);
        Ok(Self {
            when: match when {
                "before" => When::Before,
                "after" => When::After,
                _ => return Err(()),
            },
            skip: number(skip)?,
            times: number(times)?,
            action: match action {
                ["pass"] => Action::Pass,
                ["return", code] => Action::Return(code.parse().map_err(drop)?),
                ["hang"] => Action::Hang,
                ["delay", ms] => Action::Delay(Duration::from_millis(number(ms)?)),
                ["abort"] => Action::Abort,
                ["segfault"] => Action::Segfault,
                ["garble"] => Action::Garble,
                _ => return Err(()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for action in [
            Action::Pass,
            Action::Return(0x30),
            Action::Hang,
            Action::Delay(Duration::from_millis(70)),
            Action::Abort,
            Action::Segfault,
            Action::Garble,
        ] {
            for fault in [Fault::always(action), Fault::once(action).skipping(3).after()] {
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
        assert_eq!("before 0 1 explode".parse::<Fault>(), Err(()));
    }

    #[test]
    fn it_strikes_as_often_as_it_says() {
        let second_and_third = Fault { times: 2, ..Fault::always(Action::Abort).skipping(1) };
        let struck: Vec<_> = (1..=4).filter(|n| second_and_third.strikes(*n)).collect();
        assert_eq!(struck, [2, 3]);
        assert!(Fault::always(Action::Hang).strikes(u64::MAX));
    }
}
