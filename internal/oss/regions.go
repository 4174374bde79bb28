package oss

import (
	"slices"
	"strings"
)

// regions are those of the page "Regions and endpoints" of OSS, finance and government
// clouds included, as of November 2026.
var regions = strings.Fields(`
	cn-hangzhou cn-shanghai cn-nanjing cn-fuzhou cn-wuhan-lr cn-qingdao cn-beijing cn-zhangjiakou cn-huhehaote cn-wulanchabu
	cn-shenzhen cn-heyuan cn-guangzhou cn-chengdu cn-zhengzhou-jva cn-hongkong
	cn-hangzhou-finance cn-hzfinance cn-hzjbp cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-szfinance cn-beijing-finance-1
	cn-north-2-gov-1 cn-heyuan-acdr-1 rg-china-mainland
	ap-northeast-1 ap-northeast-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-5 ap-southeast-6 ap-southeast-7
	ap-south-1 us-east-1 us-west-1 us-southeast-1 na-south-1 eu-central-1 eu-west-1 me-east-1 me-central-1`)

// KnownRegion says whether OSS is known to have the region, and which it may be instead; ""
// if that cannot be told. A region that is not known may be a new one.
func KnownRegion(region string) (known bool, instead string) {
	if slices.Contains(regions, region) {
		return true, ""
	}
	for _, r := range regions {
		if strings.HasSuffix(r, "-"+region) || strings.ReplaceAll(r, "-", "") == strings.ReplaceAll(region, "-", "") {
			return false, r
		}
	}
	return false, ""
}
