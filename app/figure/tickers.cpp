#include "app/figure/tickers.h"

#include <cmath>

#include "views/plots/metric_info.h"

namespace rat::app {
namespace {

// A power of the base as a person would write it; far powers of ten become 10^k, which QCustomPlot draws raised.
QString power_label(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size < 0.00095 || size >= 0.95e9)
    return QString::number(value, 'e', 0).replace("e+0", "e").replace("e-0", "e-").replace("e+", "e");
  // "1 k", not "1.00 k": ticks are round.
  QString text = QString::fromStdString(short_number(value));
  const QString suffix = text.contains(' ') ? text.mid(text.indexOf(' ')) : QString();
  text.chop(suffix.size());
  if (text.contains('.'))
    while (text.endsWith('0') || text.endsWith('.')) {
      const bool whole = text.endsWith('.');
      text.chop(1);
      if (whole) break;
    }
  return text + suffix;
}

}  // namespace

double to_symlog(double value, double c) { return std::copysign(std::log10(1 + std::abs(value) / c), value); }

double from_symlog(double position, double c) {
  return std::copysign(c * (std::pow(10, std::abs(position)) - 1), position);
}

double LinearTicker::getTickStep(const QCPRange& range) {
  step_ = QCPAxisTicker::getTickStep(range);
  largest_ = std::max(std::abs(range.lower), std::abs(range.upper));
  return step_;
}

QString LinearTicker::getTickLabel(double tick, const QLocale&, QChar, int) {
  if (std::abs(tick) < step_ * 1e-6) return "0";
  if (largest_ < 1e-3) return QString::number(tick, 'g', 3);
  // One prefix for the whole axis, so that its labels compare at a glance.
  static constexpr std::pair<double, const char*> prefixes[]{{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}};
  double unit = 1;
  QString suffix;
  for (const auto& [size, name] : prefixes)
    if (largest_ >= size && (size > 1e3 || largest_ >= 2e3)) {
      unit = size, suffix = name;
      break;
    }
  // As many decimals as the step needs: 2.5 one, 0.25 two. Fewer would round the labels.
  int decimals = 0;
  for (double scaled = step_ / unit; decimals < 6 && std::abs(scaled - std::round(scaled)) > 1e-6 * scaled;
       scaled *= 10)
    ++decimals;
  return QString::number(tick / unit, 'f', decimals) + suffix;
}

QVector<double> NamedEndTicker::createTickVector(double step, const QCPRange& range) {
  QVector<double> ticks = LinearTicker::createTickVector(step, range);
  ticks.removeIf([&](double tick) {
    const bool crowds = std::any_of(names_.begin(), names_.end(),
                                    [&](const auto& name) { return name.first - tick < 0.08 * range.size(); });
    return tick >= end_ || crowds;
  });
  for (const auto& [at, name] : names_) ticks.push_back(at);
  return ticks;
}

QVector<double> NamedEndTicker::createSubTickVector(int, const QVector<double>&) { return {}; }

QString NamedEndTicker::getTickLabel(double tick, const QLocale& locale, QChar format, int precision) {
  for (const auto& [at, name] : names_)
    if (at == tick) return QString::fromStdString(name);
  return LinearTicker::getTickLabel(tick, locale, format, precision);
}

QVector<double> LogTicker::createTickVector(double, const QCPRange& range) {
  range_ = range;
  whole_powers_ = true;
  const double base = base_;
  const int first = static_cast<int>(std::ceil(std::log(range.lower) / std::log(base) - 1e-9));
  const int last = static_cast<int>(std::floor(std::log(range.upper) / std::log(base) + 1e-9));
  QVector<double> ticks;
  if (last - first >= 2 || (base_ == 2 && last - first >= 1)) {
    const int stride = (last - first) / 8 + 1;
    for (int k = first; k <= last; ++k)
      if (k % stride == 0) ticks.push_back(std::pow(base, k));
    return ticks;
  }
  whole_powers_ = false;
  for (int k = static_cast<int>(std::floor(std::log10(range.lower))); k <= std::floor(std::log10(range.upper)); ++k)
    for (const int m : {1, 2, 5})
      if (const double tick = m * std::pow(10, k); range.contains(tick)) ticks.push_back(tick);
  if (ticks.size() >= 3) return ticks;
  return QCPAxisTicker::createTickVector(QCPAxisTicker::getTickStep(range), range);
}

QVector<double> LogTicker::createSubTickVector(int, const QVector<double>& ticks) {
  QVector<double> between;
  if (!whole_powers_ || base_ != 10 || ticks.size() < 2 || ticks[1] / ticks[0] > 11) return between;
  for (double decade = ticks.front() / 10; decade <= ticks.back(); decade *= 10)
    for (int m = 2; m < 10; ++m)
      if (range_.contains(m * decade)) between.push_back(m * decade);
  return between;
}

QString LogTicker::getTickLabel(double tick, const QLocale&, QChar, int) {
  // A length of 1024 tokens is not "1.02 k".
  if (base_ == 2 && tick >= 1000 && tick < 1e6) return QString::number(tick, 'f', 0);
  return power_label(tick);
}

QVector<double> SymlogTicker::createTickVector(double, const QCPRange& range) {
  QVector<double> ticks{0};
  const double largest = std::max(std::abs(from_symlog(range.lower, c_)), std::abs(from_symlog(range.upper, c_)));
  for (int k = static_cast<int>(std::ceil(std::log10(c_))); std::pow(10, k) <= largest * 1.0001; ++k) {
    ticks.push_back(to_symlog(std::pow(10, k), c_));
    ticks.push_front(to_symlog(-std::pow(10, k), c_));
  }
  return ticks;
}

QVector<double> SymlogTicker::createSubTickVector(int, const QVector<double>&) { return {}; }

QString SymlogTicker::getTickLabel(double tick, const QLocale&, QChar, int) {
  return power_label(from_symlog(tick, c_));
}

QVector<double> NameTicker::createTickVector(double, const QCPRange&) {
  QVector<double> ticks;
  for (const auto& [at, name] : names_) ticks.push_back(at);
  return ticks;
}

QVector<double> NameTicker::createSubTickVector(int, const QVector<double>&) { return {}; }

QString NameTicker::getTickLabel(double tick, const QLocale&, QChar, int) {
  for (const auto& [at, name] : names_)
    if (std::abs(at - tick) < 1e-9 * std::max(1.0, std::abs(at))) return name;
  return {};
}

}  // namespace rat::app
