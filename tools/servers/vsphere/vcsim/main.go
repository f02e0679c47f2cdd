// A simulated vCenter for tests: govmomi's simulator as a program.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/simulator"

	_ "github.com/vmware/govmomi/lookup/simulator"
	_ "github.com/vmware/govmomi/pbm/simulator"
	_ "github.com/vmware/govmomi/ssoadmin/simulator"
	_ "github.com/vmware/govmomi/sts/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
)

// "CreateVirtualDisk:700,ReconfigVM:50": tasks that take so many milliseconds.
func delays(text string) map[string]int {
	found := map[string]int{}
	for _, each := range strings.Split(text, ",") {
		if name, number, ok := strings.Cut(strings.TrimSpace(each), ":"); ok {
			value, err := strconv.Atoi(number)
			if err != nil {
				log.Fatalf("no number of milliseconds: %s", each)
			}
			found[name] = value
		}
	}
	return found
}

func main() {
	model := simulator.VPX()
	flag.IntVar(&model.Datacenter, "dc", 1, "datacenters")
	flag.IntVar(&model.Cluster, "cluster", 1, "clusters in each datacenter")
	flag.IntVar(&model.ClusterHost, "host", 3, "hosts in each cluster")
	flag.IntVar(&model.Host, "standalone-host", 1, "hosts without a cluster")
	flag.IntVar(&model.Datastore, "ds", 1, "datastores in each datacenter")
	flag.IntVar(&model.Machine, "vm", 2, "VMs in each resource pool")
	flag.IntVar(&model.Pod, "pod", 0, "datastore clusters in each datacenter")
	version := &model.ServiceContent.About.ApiVersion
	flag.StringVar(version, "api-version", "8.0.3.0", "API version")
	listen := flag.String("l", "127.0.0.1:0", "address")
	user := flag.String("username", "administrator", "user")
	password := flag.String("password-file", "", "file with the user's password")
	cert := flag.String("tlscert", "", "certificate, PEM")
	key := flag.String("tlskey", "", "its key")
	delay := flag.String("method-delay", "", "METHOD:MILLISECONDS, separated by commas")
	flag.Parse()

	secret, err := os.ReadFile(*password)
	if err != nil {
		log.Fatal(err)
	}
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()
	simulator.TaskDelay.MethodDelay = delays(*delay)
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{
		Host: *listen,
		User: url.UserPassword(*user, strings.TrimSpace(string(secret))),
	}
	model.Service.TLS = new(tls.Config)
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		model.Service.TLS.Certificates = []tls.Certificate{pair}
	}
	server := model.Service.NewServer()
	defer server.Close()
	fmt.Println(server.URL.Host)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
