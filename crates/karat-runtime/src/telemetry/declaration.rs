//! One line a metric, from which its field, its registration and its share of a label's values follow.

use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};

/// What is said of a metric once.
#[derive(Debug, Clone, Copy)]
pub struct Declaration<'a> {
    name: &'a str,
    help: &'a str,
    labels: &'a [&'a str],
    buckets: &'a [f64],
}

impl<'a> Declaration<'a> {
    /// A metric named `karat_<noun>_<unit>[_total]`; `help` says what it counts, without a full stop.
    #[must_use]
    pub fn new(name: &'a str, help: &'a str) -> Self {
        Self { name, help, labels: &[], buckets: &[] }
    }

    /// With labels of these names.
    #[must_use]
    pub fn by(self, labels: &'a [&'a str]) -> Self {
        Self { labels, ..self }
    }

    /// With these upper bounds of a histogram's buckets.
    #[must_use]
    pub fn in_buckets(self, buckets: &'a [f64]) -> Self {
        Self { buckets, ..self }
    }
}

/// A kind of metric that can be declared.
pub trait Kind: Collector + Clone + 'static {
    /// Makes it.
    ///
    /// # Errors
    /// When a name is none that Prometheus takes.
    fn make(declaration: &Declaration<'_>) -> Result<Self, Error>;

    /// Makes it and registers it.
    ///
    /// # Errors
    /// When a name is none that Prometheus takes, or `registry` holds a metric of the same name already.
    fn register(registry: &Registry, declaration: &Declaration<'_>) -> Result<Self, Error> {
        let made = Self::make(declaration)?;
        registry.register(Box::new(made.clone()))?;
        Ok(made)
    }
}

/// A metric without labels: alone, or one label value's share of a family.
pub trait Figure: Sized {
    /// What holds the figure of every label value.
    type Family: Kind;

    /// The figure of one label value; the same one for the same value.
    fn of(family: &Self::Family, label: &str) -> Self;
}

macro_rules! kinds {
    ($($figure:ident, $family:ident, $options:expr;)*) => {$(
        impl Kind for $figure {
            fn make(declaration: &Declaration<'_>) -> Result<Self, Error> {
                Self::with_opts($options(declaration))
            }
        }

        impl Kind for $family {
            fn make(declaration: &Declaration<'_>) -> Result<Self, Error> {
                Self::new($options(declaration), declaration.labels)
            }
        }

        impl Figure for $figure {
            type Family = $family;

            fn of(family: &$family, label: &str) -> Self {
                family.with_label_values(&[label])
            }
        }
    )*};
}

kinds! {
    IntCounter, IntCounterVec, options;
    IntGauge, IntGaugeVec, options;
    Gauge, GaugeVec, options;
    Histogram, HistogramVec, histogram_options;
}

fn options(declaration: &Declaration<'_>) -> Opts {
    Opts::new(declaration.name, declaration.help)
}

fn histogram_options(declaration: &Declaration<'_>) -> HistogramOpts {
    HistogramOpts::new(declaration.name, declaration.help).buckets(declaration.buckets.to_vec())
}

/// Declares a struct of metrics, one line each: `field: Kind = "name", "help";`, with `by ["label"]` behind the kind
/// where it has labels and `in BUCKETS` where it is a histogram.
///
/// `struct Name { … }` has a `register(&Registry)` as visible as itself. `struct Name of Families by "label" { … }` declares the
/// figures of one label value, and beside it the families that hold those of all values: `Families::register(&Registry)`
/// and `Families::of(&self, value)`. Clones share their figures.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])* $visible:vis struct $name:ident {
            $($field:ident: $kind:ident $(by [$($label:literal),+])? $(in $buckets:ident)? = $metric:literal, $help:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $visible struct $name {
            $($field: $kind,)+
        }

        impl $name {
            /// Creates every metric and registers it; fails when `registry` holds one of the same name already.
            $visible fn register(registry: &::prometheus::Registry) -> Result<Self, ::prometheus::Error> {
                Ok(Self {
                    $($field: $crate::telemetry::Kind::register(registry, &$crate::telemetry::Declaration::new($metric, $help)
                            $(.by(&[$($label),+]))?
                            $(.in_buckets(&$buckets))?)?,)+
                })
            }
        }
    };
    (
        $(#[$meta:meta])* $visible:vis struct $name:ident of $shared:vis $families:ident by $label:literal {
            $($field:ident: $kind:ident $(in $buckets:ident)? = $metric:literal, $help:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $visible struct $name {
            $($field: $kind,)+
        }

        /// The figures of every label value.
        #[derive(Debug, Clone)]
        $shared struct $families {
            $($field: <$kind as $crate::telemetry::Figure>::Family,)+
        }

        impl $families {
            /// Creates every metric and registers it; fails when `registry` holds one of the same name already.
            $shared fn register(registry: &::prometheus::Registry) -> Result<Self, ::prometheus::Error> {
                Ok(Self {
                    $($field: $crate::telemetry::Kind::register(registry, &$crate::telemetry::Declaration::new($metric, $help)
                            .by(&[$label])
                            $(.in_buckets(&$buckets))?)?,)+
                })
            }

            $shared fn of(&self, value: &str) -> $name {
                $name { $($field: $crate::telemetry::Figure::of(&self.$field, value),)+ }
            }
        }
    };
}
