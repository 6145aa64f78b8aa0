package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// The fields have the names of the reports of `weir bench`, so that one reader serves both.
type report struct {
	Workload              string   `json:"workload"`
	Messages              int      `json:"messages"`
	Seconds               float64  `json:"seconds"`
	MessagesPerSecond     float64  `json:"messages_per_second"`
	Latency               latency  `json:"latency"`
	Verified              verified `json:"verified"`
	StoredBytes           uint64   `json:"stored_bytes"`
	BrokerCPUPerMessage   float64  `json:"broker_cpu_us_per_message"`
	GeneratorCPUPerMesage float64  `json:"generator_cpu_us_per_message"`
	Usage                 usage    `json:"usage"`
}

type latency struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	P999    float64 `json:"p99_9_us"`
	Max     float64 `json:"max_us"`
}

type verified struct {
	Acknowledged uint64 `json:"acknowledged"`
	Stored       uint64 `json:"stored"`
	Agrees       bool   `json:"agrees"`
}

type usage struct {
	Broker brokerUsage `json:"broker"`
}

type brokerUsage struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	RSSBytes   uint64  `json:"rss_bytes"`
}

// Counters at one moment.
type counters struct {
	broker, own time.Duration
	rss         uint64
}

func newReport(sorted []time.Duration, window time.Duration, acknowledged, stored, storedBytes uint64, first, last counters) *report {
	each := func(spent time.Duration) float64 {
		return float64(spent.Nanoseconds()) / 1e3 / float64(max(len(sorted), 1))
	}
	at := func(quantile float64) float64 {
		if len(sorted) == 0 {
			return 0
		}
		index := min(int(quantile*float64(len(sorted))), len(sorted)-1)
		return float64(sorted[index].Nanoseconds()) / 1e3
	}
	return &report{
		Workload:              "natsload",
		Messages:              len(sorted),
		Seconds:               window.Seconds(),
		MessagesPerSecond:     float64(len(sorted)) / window.Seconds(),
		Latency:               latency{len(sorted), at(0.5), at(0.99), at(0.999), at(1)},
		Verified:              verified{acknowledged, stored, acknowledged == stored},
		StoredBytes:           storedBytes,
		BrokerCPUPerMessage:   each(last.broker - first.broker),
		GeneratorCPUPerMesage: each(last.own - first.own),
		Usage:                 usage{brokerUsage{(last.broker - first.broker).Seconds(), last.rss}},
	}
}

// snapshot reads what the broker and this process have used so far. /proc counts in ticks of 10 ms.
func snapshot(pid int) counters {
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	found := counters{own: time.Duration(own.Utime.Nano() + own.Stime.Nano())}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// The name in parentheses may hold anything; fields are counted from behind it.
		rest := string(stat[bytes.LastIndexByte(stat, ')')+1:])
		var user, system int64
		fields := strings.Fields(rest)
		fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
		found.broker = time.Duration(user+system) * 10 * time.Millisecond
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		fmt.Sscan(rest, &found.rss)
		found.rss *= 1024
	}
	return found
}
