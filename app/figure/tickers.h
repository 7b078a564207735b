// Tick marks and their labels: round steps with SI prefixes, powers of two as 1, 2, 4, decades, symmetric log.
#pragma once

#include <qcustomplot.h>

#include <string>
#include <utility>
#include <vector>

#include "views/plots/plot.h"

namespace rat::app {

// Symmetric logarithm: linear within +-c, logarithmic outside; c is the axis's own constant.
double to_symlog(double value, double c);
double from_symlog(double position, double c);

class LinearTicker : public QCPAxisTicker {
 protected:
  double getTickStep(const QCPRange& range) override;
  QString getTickLabel(double tick, const QLocale& locale, QChar format, int precision) override;

 private:
  double step_ = 1, largest_ = 1;
};

// Numbers up to `end`, then names at their own places.
class NamedEndTicker : public LinearTicker {
 public:
  NamedEndTicker(double end, std::vector<std::pair<double, std::string>> names) : end_(end), names_(std::move(names)) {}

 protected:
  QVector<double> createTickVector(double step, const QCPRange& range) override;
  QVector<double> createSubTickVector(int count, const QVector<double>& ticks) override;
  QString getTickLabel(double tick, const QLocale& locale, QChar format, int precision) override;

 private:
  double end_;
  std::vector<std::pair<double, std::string>> names_;
};

class LogTicker : public QCPAxisTicker {
 public:
  explicit LogTicker(int base) : base_(base) {}

 protected:
  QVector<double> createTickVector(double step, const QCPRange& range) override;
  QVector<double> createSubTickVector(int count, const QVector<double>& ticks) override;
  QString getTickLabel(double tick, const QLocale& locale, QChar format, int precision) override;

 private:
  int base_;
  QCPRange range_;
  bool whole_powers_ = true;
};

class SymlogTicker : public QCPAxisTicker {
 public:
  explicit SymlogTicker(double c) : c_(c) {}

 protected:
  QVector<double> createTickVector(double step, const QCPRange& range) override;
  QVector<double> createSubTickVector(int count, const QVector<double>& ticks) override;
  QString getTickLabel(double tick, const QLocale& locale, QChar format, int precision) override;

 private:
  double c_;
};

// Names at whole positions.
class NameTicker : public QCPAxisTicker {
 public:
  explicit NameTicker(std::vector<std::pair<double, QString>> names) : names_(std::move(names)) {}

 protected:
  QVector<double> createTickVector(double step, const QCPRange& range) override;
  QVector<double> createSubTickVector(int count, const QVector<double>& ticks) override;
  QString getTickLabel(double tick, const QLocale& locale, QChar format, int precision) override;

 private:
  std::vector<std::pair<double, QString>> names_;
};

}  // namespace rat::app
